"""Two results side by side, on the images they share: is the difference real?

Both classifiers met the same images, so the examples where exactly one of them holds
decide (McNemar 1947): with b and c such examples and no true difference, b is
binomial(b + c, 1/2). Comparing two separate intervals would throw that away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import UserError
from zoo.records import Examples, Proportion, Record, Result, Verdict
from zoo.result_file import read_result
from zoo.verdicts import verdict

Z95 = 1.959963984540054
"""97.5% point of the standard normal distribution."""


class PairedDifference(Record):
    """Accuracy of B minus accuracy of A on shared examples."""

    name: str
    """"clean", "robust" (the worst case over all attacks), or an attack."""
    a: Proportion
    b: Proportion
    only_a: int
    """Examples that A holds and B does not."""
    only_b: int
    difference: float
    """B - A, in [-1, 1]."""
    low: float
    """Of the 95% interval (Newcombe 1998, method 10)."""
    high: float
    p_value: float
    """Exact, two-sided (McNemar); not corrected for the number of rows."""


class Comparison(Record):
    """All rows of one comparison."""

    a: str
    """Model and probe, e.g. "zoo:tarrl-digits (ALF, rate 0.1, 10% labels)"."""
    b: str
    dataset: str
    threat: str
    shared: int
    rows: list[PairedDifference]
    only_in_one: list[str]
    """Attacks that only one of the results has: not compared."""


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value from the two kinds of disagreement."""
    from scipy.stats import binomtest

    total = only_a + only_b
    return float(binomtest(only_a, total).pvalue) if total else 1.0


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion (1927)."""
    share, z2 = k / n, Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return center - half, center + half


def paired_interval(
    both: int, only_a: int, only_b: int, neither: int
) -> tuple[float, float]:
    """95% interval of B - A from paired outcomes.

    Newcombe 1998 (Statistics in Medicine 17, 2635-2650), method 10: the two Wilson
    intervals combined, with their correlation phi, continuity-corrected when positive.
    It does not degenerate when there is little disagreement.

    Args:
        both: Examples that both hold.
        only_a: Held by A alone.
        only_b: Held by B alone.
        neither: Held by none.
    """
    n = both + only_a + only_b + neither
    k_a, k_b = both + only_a, both + only_b
    (low_a, high_a), (low_b, high_b) = wilson(k_a, n), wilson(k_b, n)
    phi = _correlation(both, only_a, only_b, neither)
    p_a, p_b = k_a / n, k_b / n

    def half(d: float, e: float) -> float:
        return math.sqrt(max(0.0, d * d - 2 * phi * d * e + e * e))

    difference = p_b - p_a
    return (
        difference - half(p_b - low_b, high_a - p_a),
        difference + half(high_b - p_b, p_a - low_a),
    )


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Newcombe's phi; 0 where a margin of the table is empty."""
    n = both + only_a + only_b + neither
    product = (
        (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    )
    if not product:
        return 0.0
    top = both * neither - only_a * only_b
    if top > 0:
        return max(top - n / 2, 0) / math.sqrt(product)
    return top / math.sqrt(product)


def paired_difference(name: str, a: list[bool], b: list[bool]) -> PairedDifference:
    """The row of one column of outcomes; the lists run over the same examples."""
    pairs = list(zip(a, b, strict=True))
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    low, high = paired_interval(both, only_a, only_b, neither)
    return PairedDifference(
        name=name,
        a=Proportion.of(sum(a), len(a)),
        b=Proportion.of(sum(b), len(b)),
        only_a=only_a,
        only_b=only_b,
        difference=(only_b - only_a) / len(pairs),
        low=low,
        high=high,
        p_value=mcnemar(only_a, only_b),
    )


def compare(a: Result, b: Result) -> Comparison:
    """Clean, robust and each attack that both results have, on their shared examples.

    Raises:
        UserError: another dataset, split or threat model, no shared example, or labels
            that contradict each other.
    """
    _check_comparable(a, b)
    position_a, position_b = shared_rows(a.examples, b.examples)
    names_a, names_b = _names(a), _names(b)
    common = [name for name in names_a if name in names_b]
    columns = [
        ("clean", _clean(a.examples), _clean(b.examples)),
        ("robust", _robust(a.examples), _robust(b.examples)),
        *((n, attack_column(a, n), attack_column(b, n)) for n in common),
    ]
    return Comparison(
        a=described(a),
        b=described(b),
        dataset=f"{a.dataset.name}/{a.dataset.split}",
        threat=str(a.threat),
        shared=len(position_a),
        rows=[
            paired_difference(
                name,
                [column_a[row] for row in position_a],
                [column_b[row] for row in position_b],
            )
            for name, column_a, column_b in columns
        ],
        only_in_one=sorted(set(names_a) ^ set(names_b)),
    )


def compare_files(a: Path, b: Path) -> Comparison:
    """As `compare`, from result files or the folders that hold them."""
    return compare(read_result(a), read_result(b))


def described(result: Result) -> str:
    """The model, and what tells its probe from others on the same encoder."""
    probe = result.probe
    if probe is None:
        return result.model.reference
    chosen = "l2" if "l2" in probe.parameters else "rate"
    words = [probe.protocol]
    if chosen in probe.parameters:
        words.append(f"{chosen} {probe.parameters[chosen]:g}")
    if probe.labels:
        words.append(f"{probe.labels} labels")
    return f"{result.model.reference} ({', '.join(words)})"


def _check_comparable(a: Result, b: Result) -> None:
    differing = [
        (what, left, right)
        for what, left, right in (
            ("dataset", a.dataset.name, b.dataset.name),
            ("split", a.dataset.split, b.dataset.split),
            ("threat model", str(a.threat), str(b.threat)),
        )
        if left != right
    ]
    if differing:
        parts = [f"{what} {left} against {right}" for what, left, right in differing]
        raise UserError(
            f"the results cannot be compared: {'; '.join(parts)}; evaluate both on the "
            "same images under the same threat model"
        )


def shared_rows(a: Examples, b: Examples) -> tuple[list[int], list[int]]:
    """Rows of the examples that both have, by position in the published split.

    Raises:
        UserError: none shared, or a shared one has two labels.
    """
    where = {index: row for row, index in enumerate(b.index)}
    rows = [(i, where[index]) for i, index in enumerate(a.index) if index in where]
    if not rows:
        raise UserError("the results share no example; evaluate both on the same ones")
    wrong = [a.index[i] for i, j in rows if a.label[i] != b.label[j]]
    if wrong:
        raise UserError(
            f"example {wrong[0]} has two different labels in the two results "
            f"({len(wrong)} such examples): they are not about the same images"
        )
    return [i for i, _ in rows], [j for _, j in rows]


def _names(result: Result) -> list[str]:
    return [run.name for run in result.attacks]


def _clean(examples: Examples) -> list[bool]:
    return [
        y == p for y, p in zip(examples.label, examples.clean_prediction, strict=True)
    ]


def _robust(examples: Examples) -> list[bool]:
    return [found is Verdict.ROBUST for found in examples.verdict]


def attack_column(result: Result, name: str) -> list[bool]:
    """Whether each example is correct and held against this attack; in a sequence,
    against it and those before it."""
    counted = list(_counted(result, name))
    examples = result.examples
    columns = [examples.outcomes[each] for each in counted]
    return [
        verdict(label, clean, (column[row] for column in columns)) is Verdict.ROBUST
        for row, (label, clean) in enumerate(
            zip(examples.label, examples.clean_prediction, strict=True)
        )
    ]


def _counted(result: Result, name: str) -> Iterator[str]:
    """The attack, and the members before it if it runs in sequence."""
    runs = {run.name: run for run in result.attacks}
    for run in result.attacks:
        if run.name == name:
            yield name
            return
        if run.sequence and runs[name].sequence:
            yield run.name
