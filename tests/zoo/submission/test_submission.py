"""The bundle for RobustBench: its rules, its schema, its log."""

from __future__ import annotations

import csv
import json
import logging
import re
from pathlib import Path

import pytest
import torch
from ten_thousand import NAME, PAPER, Prepared, prepare
from torch import Tensor, nn
from zoo_collection import ENTRY, Evaluated

from zoo import datasets
from zoo.classifier import Classifier
from zoo.collection.sources import FolderSource
from zoo.errors import UserError
from zoo.records import Outcome, Proportion
from zoo.submission.bundle import submit
from zoo.submission.info import Paper, robustbench_name
from zoo.submission.log import log_lines
from zoo.submission.model import definition, load_definition, weights
from zoo.submission.requirements import check_defence
from zoo.threat import ThreatModel
from zoo.verification import load_named_classifier, load_named_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("submission"))


def test_the_bundle_holds_what_maintainers_ask_for(prepared: Prepared) -> None:
    files = {str(p.relative_to(prepared.bundle)) for p in prepared.bundle.rglob("*.*")}
    assert files == {
        f"model_info/cifar10/Linf/{NAME}.json",
        f"models/cifar10/Linf/{NAME}.pt",
        f"{NAME.replace('-', '_')}.py",
        "check.py",
        "ISSUE.md",
        "autoattack.log",
        "verdicts.csv",
    }


def test_the_json_is_of_their_schema(prepared: Prepared) -> None:
    path = prepared.bundle / "model_info" / "cifar10" / "Linf" / f"{NAME}.json"
    info = json.loads(path.read_text())
    types = {key: type(value).__name__ for key, value in info.items()}
    assert types == {
        "link": "str",
        "name": "str",
        "authors": "str",
        "additional_data": "bool",
        "number_forward_passes": "int",
        "dataset": "str",
        "venue": "str",
        "architecture": "str",
        "eps": "str",
        "clean_acc": "str",
        "reported": "str",
        "autoattack_acc": "str",
        "footnote": "str",
    }
    assert info["eps"] == "8/255"
    assert float(info["clean_acc"]) == pytest.approx(100 * prepared.result.clean.value)
    assert float(info["autoattack_acc"]) == pytest.approx(
        100 * prepared.result.robust.value
    )
    assert "unreliable" not in info  # no health checks ran, so nobody knows
    assert info["additional_data"]  # the card says: pretrained on digits, not CIFAR


def test_the_issue_is_filled(prepared: Prepared) -> None:
    text = (prepared.bundle / "ISSUE.md").read_text()
    assert f"[New Model] {NAME}" in text
    assert PAPER.title in text
    assert f"**Clean accuracy**: {100 * prepared.result.clean.value:.2f}" in text
    assert "**eps**: 8/255" in text
    assert not re.search(r"^- \[ \] .*:", text.split("# Checked")[1], re.M)


def test_the_table_of_verdicts_adds_up(prepared: Prepared) -> None:
    with (prepared.bundle / "verdicts.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["index"]) for row in rows] == list(range(10_000))
    robust = sum(row["verdict"] == "robust" for row in rows)
    assert robust == prepared.result.robust.k


def test_what_is_missing_is_named(evaluated: Evaluated, tmp_path: Path) -> None:
    source = FolderSource(evaluated.published)
    with pytest.raises(UserError) as caught:
        submit(source, f"tiny-digits/{ENTRY}", Paper(), output=tmp_path / "bundle")
    text = str(caught.value)
    for part in (
        "digits Linf (theirs: cifar10 Linf, cifar10 L2, cifar100 Linf)",
        "10,000 test points",
        "fgsm,pgd",
        "no --title",
    ):
        assert part in text
    assert not (tmp_path / "bundle").exists()
    draft = submit(
        source, f"tiny-digits/{ENTRY}", Paper(), output=tmp_path / "bundle", draft=True
    )
    assert len(draft.missing) >= 4
    with pytest.raises(UserError, match="exists already"):
        submit(
            source,
            f"tiny-digits/{ENTRY}",
            PAPER,
            output=tmp_path / "bundle",
            draft=True,
        )


class Noisy(nn.Linear):
    """Answers differently each time."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-4 * torch.randn(len(x), 1)


class Looping(nn.Linear):
    """Purifies its input by gradient descent."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = x.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(super().forward(moved).sum(), moved)
        return super().forward(x - gradient)


class Masked(nn.Linear):
    """Has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.round() + 0 * x)


@pytest.mark.parametrize(
    ("kind", "unmet"),
    [
        (nn.Linear, None),
        (Noisy, "a deterministic forward pass"),
        (Looping, "no optimisation loop in the forward pass"),
        (Masked, "non-zero input gradients"),
    ],
)
def test_forbidden_defences_are_found(kind: type[nn.Linear], unmet: str | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), kind(64, 10))
    classifier = Classifier(model, nn.Identity(), classes=10, shape=(1, 8, 8))
    checks = check_defence(classifier, datasets.load("digits", "test"))
    assert {check.what for check in checks if not check.holds} == (
        {unmet} if unmet else set()
    )


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet18", {"stem_padding": 2}),
        ("preact_resnet18", {}),
        ("wide_resnet_28_10", {"depth": 10, "widen": 1}),
        ("resnet_s32", {"widths": [4, 8], "blocks": [1, 1]}),
        ("resnet_s32_grid", {"widths": [4, 8], "blocks": [1, 1], "linear_end": 5}),
    ],
)
def test_every_architecture_can_be_written_as_one_file(
    arch: str, options: dict[str, object]
) -> None:
    from zoo.encoder import Encoder, EncoderSpec

    torch.manual_seed(1)
    spec = EncoderSpec(
        arch=arch, options=options, shape=(3, 32, 32), mean=(0.5,), std=(0.2,)
    )
    encoder = Encoder(spec)
    classifier = Classifier(
        encoder, nn.Linear(encoder.dim, 10), classes=10, shape=(3, 32, 32)
    )
    source = definition(
        classifier, name="A2026B", reference="a/b", dataset="cifar10", threat="Linf"
    )
    assert "import zoo" not in source
    assert "from zoo" not in source
    rebuilt = load_definition(source, "A2026B")
    rebuilt.load_state_dict(weights(classifier))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(rebuilt(x), classifier(x))


def test_the_log_is_autoattacks_own(evaluated: Evaluated) -> None:
    """Against the lines that the reference itself logs for the same attacks."""
    from pyautoattack import AutoAttack

    classifier = load_named_classifier(evaluated.run, evaluated.result)
    data = load_named_dataset(evaluated.result, None)
    x, y = data.images(slice(None)), data.labels
    threat = ThreatModel(norm="Linf", eps=0.015)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("auto-attack")
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.DEBUG
    flags = [classifier(x).argmax(dim=1) == y]
    try:
        for attacks in (["apgd-ce"], ["apgd-ce", "apgd-t"]):
            lines.clear()
            runner = AutoAttack(classifier, norm="Linf", eps=threat.eps, seed=0)
            runner.attacks_to_run = attacks
            x_adv, _ = runner.run_standard_evaluation(x, y, batch_size=60)
            flags.append(classifier(x_adv).argmax(dim=1) == y)
    finally:
        logger.removeHandler(handler)
        logger.level = level
    assert flags[0].sum() > flags[1].sum() > 0
    outcomes = {
        name: [
            Outcome.SKIPPED if not b else Outcome.HELD if a else Outcome.FOOLED
            for b, a in zip(before.tolist(), after.tolist(), strict=True)
        ]
        for name, before, after in (
            ("apgd-ce", flags[0], flags[1]),
            ("apgd-t", flags[1], flags[2]),
        )
    }
    base = evaluated.result.attacks[0]
    runs = [
        base.model_copy(
            update={
                "name": name,
                "sequence": True,
                "robust": Proportion.of(int(flag.sum()), 60),
            }
        )
        for name, flag in zip(outcomes, flags[1:], strict=True)
    ]
    result = evaluated.result.model_copy(
        update={
            "attacks": runs,
            "battery": "standard",
            "threat": threat,
            "chunk_size": 60,
            "clean": Proportion.of(int(flags[0].sum()), 60),
            "robust": runs[-1].robust,
            "examples": evaluated.result.examples.model_copy(
                update={"outcomes": outcomes}
            ),
        }
    )

    def timeless(text: list[str]) -> list[str]:
        kept = [t for t in text if not t.startswith(("running", "setting"))]
        return [re.sub(r"total time [\d.]+ s", "total time", t) for t in kept]

    assert timeless(log_lines(result, x, x_adv)) == timeless(lines)


@pytest.mark.parametrize(
    ("paper", "variant", "name"),
    [
        (PAPER, None, "Muller-Ludenscheidt2022Task"),
        (
            Paper(title="On X", authors="Ana de la Cruz, B", venue="ICML 2026"),
            "WRN-28-10",
            "Cruz2026On_WRN-28-10",
        ),
        (Paper(), None, "tiny-digits"),
    ],
)
def test_names(
    evaluated: Evaluated, paper: Paper, variant: str | None, name: str
) -> None:
    card = FolderSource(evaluated.plain).find("tiny-digits").card
    assert robustbench_name(paper, card, variant) == name
