"""What README and results say of one encoder against another follows from records."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from benchmarks.claims import entries as claims
from benchmarks.claims import suites, table
from benchmarks.claims.entries import CLAIMS, Claim, judge, judged
from robrep_eval.run.suite_figures import welch
from zoo.collection.entries import Published, read_entry
from zoo.collection.opening import open_source
from zoo.paired import paired_interval
from zoo.records import TaskVersion
from zoo.suites.suite import load_suite
from zoo.verdicts import correct, robust

ROOT = Path(__file__).parents[1]
STATEMENTS: dict[str, tuple[Claim | suites.SuiteClaim, ...]] = {
    **claims.STATEMENTS,
    **suites.STATEMENTS,
}
README, RESULTS = ROOT / "README.md", ROOT / "docs" / "results"
TESTS = RESULTS / "tests.md"
OWN = ("tarrl", "spectral", "prototypes", "lipschitz-contrast")
COMPARES = re.compile(
    r"\b(ahead|behind|best|better|beats|level with|(more|most|less|least) robust|"
    r"outperforms?|strongest|within \w+ points)\b"
)
BLOCK = re.compile(r"^(```.*?^```|\|[^\n]*|<!--.*?-->)", re.MULTILINE | re.DOTALL)


def sentences(path: Path) -> list[str]:
    """Of the prose of a page, in one line each; no code, no table, no heading."""
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=[-#])", text):
        line = " ".join(paragraph.split())
        if not line.startswith("#"):
            found += re.split(r"(?<=[.:]) (?=[A-Z`])", line)
    return found


def entries() -> list[Published]:
    source = open_source("embedded")
    return [
        read_entry(source, row, name)
        for row in source.index.encoders
        for name in row.entries
    ]


@pytest.mark.parametrize("sentence", STATEMENTS)
def test_a_sentence_of_the_readme_holds(sentence: str) -> None:
    assert sentence in " ".join(README.read_text(encoding="utf-8").split())
    for claim in STATEMENTS[sentence]:
        if isinstance(claim, Claim):
            verdict, shown = judge(claim), claim in CLAIMS
        else:
            verdict, shown = suites.judge(claim), claim in suites.CLAIMS
        assert verdict.holds, claim.text
        assert shown, "it is to stand in the table too"


def test_the_readme_compares_by_claims_alone() -> None:
    told = [one for one in sentences(README) if COMPARES.search(one)]
    assert set(told) == set(STATEMENTS)


@pytest.mark.parametrize("page", ["index", "tests", "measures", "transfer"])
def test_the_results_compare_in_their_table_alone(page: str) -> None:
    found = sentences(RESULTS / f"{page}.md")
    told = [one for one in found if COMPARES.search(one)]
    assert all(one.startswith("What may be said of one entry") for one in told), told


@pytest.mark.parametrize("kind", ["claims", "suites"])
def test_the_results_say_what_the_command_prints(kind: str) -> None:
    text = TESTS.read_text(encoding="utf-8")
    shown = text.partition(f"<!-- {kind} -->\n")[2].partition(f"<!-- /{kind} -->")[0]
    assert shown.strip() == table.markdown(kind).strip()


def test_every_method_of_others_is_among_those_behind() -> None:
    said = {claim.b for claim in claims.OTHERS_BEHIND}
    there = {
        each.row.card.name
        for each in entries()
        if each.result.probe is not None
        and each.result.probe.protocol == "SLF"
        and not each.row.card.training.labels
        and each.row.card.training.method not in OWN
    }
    assert said == there


def test_the_readme_shows_the_highest_of_each_kind() -> None:
    rows = re.findall(r"`zoo:([\w-]+)`([^|]*)\| (no|yes) \|", README.read_text())
    for name, note, labels in rows:
        if "no adversary" in note:
            continue
        found = [
            each
            for each in entries()
            if each.result.probe is not None
            and each.result.probe.protocol == "SLF"
            and each.result.threat.norm == "Linf"
            and each.result.battery == "standard"
            and each.result.probe.labels is None
            and each.result.dataset.name == _dataset(name)
            and each.row.card.training.labels == (labels == "yes")
        ]
        best = max(found, key=lambda each: each.result.robust.value)
        assert best.row.card.name == name
    assert len(rows) >= 6


def test_a_claim_over_a_suite_is_of_its_entries() -> None:
    """The mean over tasks and seeds, by hand from what each entry states."""
    claim = next(claim for claim in suites.CLAIMS if claim.probe == "slf")
    suite = load_suite(claim.suite)
    means = []
    for side in (claim.a, claim.b):
        shares = []
        for encoder in side:
            found = suites.results(encoder, suite, claim.probe)
            assert list(found) == [task.name for task in suite.tasks]
            assert {result.battery for result in found.values()} == {"fast"}
            shares += [result.robust.k / result.robust.n for result in found.values()]
        means.append(float(np.mean(shares)))
    verdict = suites.judge(claim)
    assert verdict.difference == pytest.approx(100 * (means[0] - means[1]))
    assert verdict.low < verdict.difference < verdict.high


@pytest.mark.parametrize("left", ["images", "tasks"])
def test_entries_of_another_suite_support_no_claim(left: str) -> None:
    """Of fewer images, or of another radius than the suite asks for."""
    suite = load_suite("fashion-mnist")
    changed = {
        "images": suite.model_copy(update={"images": 400}),
        "tasks": suite.model_copy(
            update={"tasks": [t.model_copy(update={"eps": 0.05}) for t in suite.tasks]}
        ),
    }
    name = "spectral-grid-fashion-mnist"
    assert suites.results(name, suite, "slf")
    with pytest.raises(ValueError, match="0 entries of spectral-grid"):
        suites.results(name, changed[left], "slf")


def test_welch_is_the_textbooks() -> None:
    """By its formula: s^2 / n of each, and degrees of freedom after Satterthwaite."""
    a, b = np.array([46.5, 45.1, 46.0]), np.array([47.2, 49.1, 49.1])
    parts = [side.var(ddof=1) / 3 for side in (a, b)]
    freedom = sum(parts) ** 2 / sum(part**2 / 2 for part in parts)
    reach = student.ppf(0.975, freedom) * np.sqrt(sum(parts))
    gap = a.mean() - b.mean()
    found = welch(a.tolist(), b.tolist())
    assert found == pytest.approx((gap - reach, gap + reach))


def test_encoders_without_an_entry_on_a_task_support_no_claim() -> None:
    side = ("simclr-fashion-mnist",)
    with pytest.raises(ValueError, match="0 entries of simclr-fashion-mnist"):
        suites.judge(suites.SuiteClaim(suite="fashion-mnist", a=side, b=side))


def _dataset(name: str) -> str:
    return next(dataset for dataset in claims.ENTRIES if name.endswith(dataset))


def test_one_seed_each_is_the_paired_test() -> None:
    """Counted here from the columns of two entries."""
    a, b = "spectral-fashion-mnist", "pgd-at-k2-fashion-mnist"
    source = open_source("embedded")
    found = {}
    for name in (a, b):
        found[name] = read_entry(
            source, source.find(name), "fashion-mnist-linf-0.1-slf"
        ).result
    for what, read in (("robust", robust), ("clean", correct)):
        left, right = (np.asarray(read(found[name].examples)) for name in (a, b))
        only_a, only_b = int((left & ~right).sum()), int((right & ~left).sum())
        verdict = judge(Claim(a=a, b=b, what=what))  # type: ignore[arg-type]
        assert verdict.difference == pytest.approx(100 * (left.mean() - right.mean()))
        low, high = paired_interval(
            int((left & right).sum()), only_b, only_a, int((~left & ~right).sum())
        )
        assert (verdict.low, verdict.high) == pytest.approx((100 * low, 100 * high))
        assert verdict.p_value == pytest.approx(
            binomtest(only_a, only_a + only_b).pvalue
        )
        for margin in (0.0, 1.0, 2.0, 3.0, 5.0):
            said = Claim(a=a, b=b, what=what, margin=margin)  # type: ignore[arg-type]
            assert judge(said).holds == (100 * low > -margin)


def test_protocols_are_never_mixed() -> None:
    source = open_source("embedded")
    one = read_entry(source, source.find("tarrl-digits"), "digits-linf-0.1-slf").result
    other = one.model_copy(update={"task": TaskVersion(dataset=1, probe=2)})
    assert judged(one, one, "robust", 1.0).holds
    assert not judged(one, one, "robust", 0.0).holds
    with pytest.raises(ValueError, match=r"version 1/1 and .* version 1/2"):
        judged(one, other, "robust", 0.0)


def test_claims_are_said_once() -> None:
    assert len(set(CLAIMS)) == len(CLAIMS)
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)
