"""The reference engine gives the verdicts of pyautoattack called by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.battery import Battery
from robrep_eval.attacks.reference import ReferenceAttack
from robrep_eval.run.chunk import BatterySettings
from robrep_eval.run.engine import run_battery
from zoo.classifier import Classifier
from zoo.collection.references import LoadOptions, load
from zoo.datasets.base import Dataset
from zoo.records import Verdict
from zoo.threat import Norm, ThreatModel

pytestmark = pytest.mark.slow


CUT = {"n_queries": 30, "n_iter": 6}
"""The same cut on both sides: every line of the driver runs, in seconds."""


def _cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer iterations for every AutoAttack made from here on, by hand or by us."""
    original = AutoAttack.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.square.n_queries = CUT["n_queries"]
        for attack in (self.apgd, self.apgd_targeted, self.fab):
            attack.n_iter = CUT["n_iter"]

    monkeypatch.setattr(AutoAttack, "__init__", init)


def _by_hand(
    classifier: Classifier, data: Dataset, threat: ThreatModel, chunk: int, seed: int
) -> list[bool]:
    robust: list[bool] = []
    for start in range(0, len(data), chunk):
        part = data.subset(slice(start, start + chunk))
        x, y = part.images(slice(None)), part.labels
        attack = AutoAttack(
            classifier, norm=threat.norm, eps=threat.eps, seed=seed, version="standard"
        )
        x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=chunk)
        robust += (classifier(x_adv).argmax(dim=1) == y).tolist()
    return robust


def _standard(member_version: str = "standard") -> Battery:
    members = ("apgd-ce", "apgd-t", "fab-t", "square")
    attacks = tuple(
        ReferenceAttack(member=m, version=member_version)  # type: ignore[arg-type]
        for m in members
    )
    return Battery("standard", "reference", attacks)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.15), ("L2", 0.6), ("L1", 2.0)])
def test_verdicts_equal_those_by_hand(
    norm: Norm,
    eps: float,
    robust_classifier: Classifier,
    digits_test: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _cut(monkeypatch)
    data = digits_test.subset(slice(24))
    threat = ThreatModel(norm=norm, eps=eps)
    found = run_battery(
        robust_classifier,
        data,
        threat,
        _standard(),
        settings=BatterySettings(seed=3, chunk_size=10),
        folder=tmp_path,
    )
    want = _by_hand(robust_classifier, data, threat, chunk=10, seed=3)
    got = [v is Verdict.ROBUST for v in found.examples.verdict]
    assert got == want
    assert 0 < sum(got) < len(got), "the case must have both outcomes"


def _stranger() -> Classifier:
    import pyautoattack

    path = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    options = LoadOptions(shape=(3, 32, 32), classes=10, arch="resnet18")
    classifier = load(str(path), options).classifier
    assert classifier is not None
    return classifier


def test_pyautoattacks_own_checkpoint_loads_as_its_own_code_does() -> None:
    import importlib.util

    import pyautoattack

    folder = Path(pyautoattack.__file__).parent / "examples"
    spec = importlib.util.spec_from_file_location("their_resnet", folder / "resnet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    theirs = module.ResNet18()
    theirs.load_state_dict(
        torch.load(folder / "model_test.pt", "cpu", weights_only=True)
    )
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(_stranger()(x), theirs.eval()(x))


def test_verdicts_on_a_stranger_equal_those_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_sample_image

    from zoo.datasets.base import from_tensors

    _cut(monkeypatch)
    stranger = _stranger()
    photo = torch.from_numpy(load_sample_image("china.jpg").copy()) / 255
    x = torch.stack(
        [photo[i : i + 64 : 2, i : i + 64 : 2].permute(2, 0, 1) for i in (0, 90, 180)]
    )
    data = from_tensors(
        x,
        stranger(x).argmax(dim=1),
        name="patches",
        classes=[str(i) for i in range(10)],
    )
    threat = ThreatModel(norm="Linf", eps=1 / 255)
    found = run_battery(
        stranger,
        data,
        threat,
        _standard(),
        settings=BatterySettings(chunk_size=3),
        folder=tmp_path,
    )
    want = _by_hand(stranger, data, threat, chunk=3, seed=0)
    assert [v is Verdict.ROBUST for v in found.examples.verdict] == want


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_fewer_than_ten_classes_work_and_are_noted(
    classes: int,
    robust_classifier: Classifier,
    digits_test: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _cut(monkeypatch)
    head = torch.nn.Linear(32, classes)
    linear = robust_classifier.linear
    assert linear is not None
    with torch.no_grad():
        head.weight.copy_(linear.weight[:classes])
        head.bias.copy_(linear.bias[:classes])
    few = Classifier(robust_classifier.encoder, head, classes=classes, shape=(1, 8, 8))
    rows = (digits_test.labels < classes).nonzero().flatten()[:12]
    x, y = digits_test.images(rows), digits_test.labels[rows]
    threat = ThreatModel(norm="Linf", eps=0.2)
    notes: list[str] = []
    context = Context(seed=0, ids=rows, batch_size=12, note=notes.append)
    for member in ("apgd-t", "fab-t"):
        attack = ReferenceAttack(member=member)
        x_adv = attack.propose(few, x, y, threat, context)
        assert x_adv.shape == x.shape
    assert any("fab-t" in note for note in notes)
    assert any("apgd-t" in note for note in notes)
    assert all(str(classes) in note for note in notes)


def test_the_callers_random_state_is_left_alone(
    robust_classifier: Classifier, digits_test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut(monkeypatch)
    x, y = digits_test.images(slice(4)), digits_test.labels[:4]
    context = Context(seed=0, ids=torch.arange(4), batch_size=4)
    before = torch.random.get_rng_state()
    ReferenceAttack(member="square").propose(
        robust_classifier, x, y, ThreatModel(norm="Linf", eps=0.1), context
    )
    assert torch.equal(torch.random.get_rng_state(), before)
