"""With the reference's draws, the reference's verdict on every example.

The peer is pyautoattack, called attack by attack; the classifiers are trained here on
real digits (not robust, half robust, robust), and its own CIFAR-10 checkpoint.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack as PeerSquare
from torch import Tensor

from robrep_eval.attacks.apgd import ApgdAttack
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.fab import FabAttack
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.attacks.targets import UNTARGETED, Targets
from robrep_eval.randomness import seeded
from zoo.classifier import Classifier
from zoo.collection.references import LoadOptions, load
from zoo.threat import ThreatModel

SEED = 7
ROUNDINGS = 8
RADII = {"Linf": 0.15, "L2": 0.8, "L1": 2.5}


def _attack(member: str, norm: str, steps: int, targets: int) -> EngineAttack:
    losses = {"apgd-t": "dlr-targeted", "apgd-ce": "ce", "apgd-dlr": "dlr"}
    aims = Targets(count=targets) if member.endswith("-t") else UNTARGETED
    common: dict[str, Any] = {
        "name": member,
        "steps": steps,
        "restarts": 2 if member in ("fab", "apgd-ce") else 1,
        "randomness": "official-rng",
    }
    if member == "square":
        return SquareAttack(**common)
    if member.startswith("fab"):
        return FabAttack(targets=aims, **common)
    return ApgdAttack(
        loss=losses[member], targets=aims, larger_radii=norm == "L1", **common
    )


def _peer(
    model: Classifier, member: str, threat: ThreatModel, steps: int, targets: int
) -> object:
    common = {"norm": threat.norm, "eps": threat.eps, "seed": SEED, "device": "cpu"}
    large = {"use_largereps": threat.norm == "L1"}
    if member == "apgd-t":
        kind = APGDAttack_targeted
        return kind(model, n_iter=steps, n_target_classes=targets, **large, **common)
    if member.startswith("apgd"):
        loss, restarts = member.removeprefix("apgd-"), 2 if member == "apgd-ce" else 1
        return APGDAttack(
            model, n_iter=steps, loss=loss, n_restarts=restarts, **large, **common
        )
    if member == "square":
        return PeerSquare(
            model, n_queries=steps, p_init=0.8, resc_schedule=False, **common
        )
    return FABAttack_PT(
        model,
        n_iter=steps,
        targeted=member == "fab-t",
        n_target_classes=targets,
        n_restarts=1 if member == "fab-t" else 2,
        **common,
    )


def _rounded(x: Tensor, number: int) -> Tensor:
    """The images with another last bit; number 0: as they are."""
    rng = torch.Generator().manual_seed(number)
    bits = torch.randint(-1, 2, x.shape, generator=rng) * min(number, 1)
    return (x * (1 + bits * torch.finfo(x.dtype).eps)).clamp(0, 1)


def _fooled(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        fooled: Tensor = model(x).argmax(dim=1) != y
    return fooled


def _compare(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    member: str,
    threat: ThreatModel,
    steps: int,
    targets: int,
) -> int:
    """Asserts equal verdicts; returns how many were fooled.

    A verdict may hang on rounding, which differs between processors: then the peer
    itself must give ours when the last bits of the pixels change, and few may.
    """

    def theirs(rounding: int) -> Tensor:
        with seeded(SEED), torch.no_grad():
            peer: Any = _peer(model, member, threat, steps, targets)
            return _fooled(model, peer.perturb(_rounded(x, rounding), y), y)

    context = Context(seed=SEED, ids=torch.arange(len(x)), batch_size=len(x))
    attack = _attack(member, threat.norm, steps, targets)
    got = _fooled(model, attack.propose(model, x, y, threat, context), y)
    want = theirs(0)
    differing = want != got
    if bool(differing.any()):
        agreeing = torch.stack([theirs(n) == got for n in range(1, ROUNDINGS + 1)])
        assert bool(agreeing.any(dim=0)[differing].all()), member
        assert int(differing.sum()) <= len(x) // 8, member
    print(f"{member} {threat}: {len(x)} examples compared, {int(want.sum())} fooled")
    return int(want.sum())


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_verdicts_with_ten_classes(norm: str, strength: float, make: Any) -> None:
    model = make.classifier(strength)
    x, y = make.correct(model, 32)
    threat = ThreatModel(norm=norm, eps=RADII[norm])
    fooled = [
        _compare(model, x, y, member, threat, steps, 3)
        for member, steps in (
            ("apgd-ce", 40),
            ("apgd-dlr", 40),
            ("apgd-t", 30),
            ("fab-t", 20),
            ("fab", 10),
            ("square", 300),
        )
    ]
    assert any(0 < count < len(x) for count in fooled), "the case must have both"


@pytest.mark.parametrize("norm", RADII)
def test_verdicts_with_three_classes(norm: str, make: Any) -> None:
    model = make.classifier(0.5, 3)
    x, y = make.correct(model, 48, 3)
    threat = ThreatModel(norm=norm, eps=2 * RADII[norm])
    for member, steps in (
        ("apgd-ce", 40),
        ("apgd-dlr", 40),
        ("fab-t", 20),
        ("square", 200),
    ):
        _compare(model, x, y, member, threat, steps, 2)


@pytest.mark.slow
def test_verdicts_on_the_peers_own_checkpoint() -> None:
    import pyautoattack
    from sklearn.datasets import load_sample_image

    path = pyautoattack.__path__[0] + "/examples/model_test.pt"
    options = LoadOptions(shape=(3, 32, 32), classes=10, arch="resnet18")
    model = load(path, options).classifier
    assert model is not None
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()) / 255
    corners = [(row, column) for row in (40, 200) for column in (60, 260, 460)]
    x = torch.stack(
        [photo[r : r + 128 : 4, c : c + 128 : 4].permute(2, 0, 1) for r, c in corners]
    )
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    threat = ThreatModel(norm="Linf", eps=0.5 / 255)
    cases = (("apgd-ce", 5), ("apgd-t", 4), ("fab-t", 3), ("square", 15))
    fooled = [_compare(model, x, y, m, threat, steps, 2) for m, steps in cases]
    assert max(fooled) > 0


@pytest.mark.long
@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_verdicts_with_full_budgets(norm: str, strength: float, make: Any) -> None:
    model = make.classifier(strength)
    x, y = make.correct(model, 128)
    threat = ThreatModel(norm=norm, eps=RADII[norm])
    for member, steps in (
        ("apgd-ce", 100),
        ("apgd-t", 100),
        ("fab-t", 100),
        ("square", 5000),
    ):
        _compare(model, x, y, member, threat, steps, 9)
