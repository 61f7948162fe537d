"""Step by step as the reference: every point that APGD visits, not only its verdict.

The peer is pyautoattack. Landscapes are rough and no point in the ball fools, so that
no row leaves early and every branch of the step size's schedule is taken.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from robrep_eval.attacks.apgd import Apgd, ApgdAttack
from robrep_eval.attacks.apgd_l1 import ApgdL1
from robrep_eval.attacks.autoattack import members
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.battery import Battery
from robrep_eval.attacks.checks import check_classifier
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.likeness import last_bits
from robrep_eval.attacks.losses import LOSSES
from robrep_eval.attacks.noise import Kind, Official, Rows
from robrep_eval.attacks.pool import State
from robrep_eval.attacks.prepared import prepare
from robrep_eval.attacks.problem import Problem
from robrep_eval.attacks.reference import ReferenceAttack
from robrep_eval.randomness import seeded
from zoo.classifier import Classifier, predict
from zoo.datasets.base import from_tensors
from zoo.threat import Norm, ThreatModel

N, STEPS, SEED = 48, 50, 11
RADII: dict[Norm, float] = {"Linf": 0.05, "L2": 0.3, "L1": 2.0}


class Rough(nn.Module):
    """Waves over the image, far from any other class; remembers what it was asked.

    With `shift`, the waves begin elsewhere in each pass, by its number alone.
    """

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.directions = torch.randn(64, 40, generator=generator)
        self.mix = torch.randn(40, 4, generator=generator) * 0.02
        self.shift = shift
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        begin = self.shift * torch.tensor(float(len(self.asked))).sin()
        self.asked.append(x.detach().clone())
        waves = (x.flatten(1) @ self.directions + begin).sin()
        return waves @ self.mix + torch.tensor([3.0, 0.0, -0.5, -1.0])


class Noting(Apgd):
    """Counts the rows that each reason decided about at the end of a window."""

    reasons: Counter[str]

    def _halve(self, s: State, gradient: Tensor, ends: Tensor) -> Tensor:
        at = s["iteration"].clamp(min=0)
        busy = ends & (s["rises"] > 0.75 * self.windows[at])
        still = busy & (s["since"] >= s["best_loss"])
        self.reasons["idle"] += int((ends & ~busy).sum())
        self.reasons["stuck"] += int((still & ~s["halved"]).sum())
        self.reasons["spared, as halved just before"] += int(
            (still & s["halved"]).sum()
        )
        return super()._halve(s, gradient, ends)


class Setting:
    """A rough classifier, and images that nothing in their balls fools."""

    def __init__(self, norm: Norm, loss: str, steps: int, passes: int = 1) -> None:
        self.norm, self.loss, self.steps, self.passes = norm, loss, steps, passes
        self.rough = Rough(shift=2.0 if passes > 1 else 0.0)
        self.classifier = Classifier(
            self.rough, nn.Identity(), classes=4, shape=(1, 8, 8)
        )
        self.x = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        self.y = torch.zeros(N, dtype=torch.int64)
        self.threat = ThreatModel(norm=norm, eps=RADII[norm])

    def problem(self) -> tuple[Problem, Rows]:
        model = prepare(self.classifier, exact=True)
        ids = torch.arange(N)
        kind: Kind = "uniform" if self.norm == "Linf" else "normal"
        draws = Official(SEED).images(kind, 0, ids, (1, 8, 8))
        return Problem(model, self.x, self.y, ids, self.threat, self.y), draws

    def visited(self, program: Apgd | ApgdL1) -> Tensor:
        """What the program asks about, (calls, n, C, H, W)."""
        self.rough.asked.clear()
        state = program.begin(torch.arange(N))
        done = None
        while done is None or not bool(done.all()):
            done = program.step(state)
        assert not bool(state["found"].any()), "a row that falls could leave early"
        return torch.stack(self.rough.asked)

    def reference(self) -> Tensor:
        """The same of pyautoattack."""
        self.rough.asked.clear()
        peer: Any = APGDAttack(
            self.classifier,
            norm=self.norm,
            eps=self.threat.eps,
            n_iter=self.steps,
            loss=self.loss,
            eot_iter=self.passes,
            seed=SEED,
            device="cpu",
        )
        peer.init_hyperparam(self.x)
        with seeded(SEED), torch.no_grad():
            peer.attack_single_run(self.x, self.y)
        return torch.stack(self.rough.asked)


@pytest.mark.parametrize("passes", [1, 5])
@pytest.mark.parametrize("steps", [12, 50])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_every_point_of_apgd(norm: Norm, loss: str, steps: int, passes: int) -> None:
    setting = Setting(norm, loss, steps, passes)
    problem, draws = setting.problem()
    program = Noting(
        problem,
        LOSSES[loss],
        draws,
        iterations=steps,
        guard=0.0,
        classes=4,
        averaged=passes,
    )
    program.reasons = Counter()
    ours = setting.visited(program)
    assert len(ours) == (steps + 1) * passes
    torch.testing.assert_close(ours, setting.reference(), rtol=0, atol=2e-6)
    if (norm, steps, passes) == ("L2", 50, 1):
        assert min(program.reasons.values()) > 0, "the case must have every reason"
        assert len(program.reasons) == 3


@pytest.mark.parametrize("passes", [1, 5])
def test_every_point_of_apgd_in_l1(passes: int) -> None:
    setting = Setting("L1", "ce", 20, passes)
    problem, draws = setting.problem()
    program = ApgdL1(
        problem,
        LOSSES["ce"],
        draws,
        iterations=20,
        guard=0.0,
        classes=4,
        averaged=passes,
        larger=False,
    )
    ours, theirs = setting.visited(program), setting.reference()
    assert len(ours) == len(theirs) == 21 * passes
    # Which coordinates are the largest hangs on rounding: the reference's own points
    # move as well when the last bits of the pixels do.
    setting.x = last_bits(setting.x)
    moved = _rows_apart(theirs, setting.reference())
    assert _rows_apart(ours, theirs) <= moved + 2 <= N // 3


def _rows_apart(one: Tensor, other: Tensor) -> int:
    return int(((one - other).abs() > 2e-6).flatten(2).any(dim=2).any(dim=0).sum())


class Trembling(nn.Module):
    """A right classifier under ripples too low to matter and too steep to see through.

    They begin somewhere else in each pass.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner = inner
        self.directions = torch.randn(64, 40, generator=generator) * 400
        self.mix = torch.randn(40, 10, generator=generator) * 2e-3

    def forward(self, x: Tensor) -> Tensor:
        begin = torch.rand(len(x), 1) * 7
        ripples = (x.flatten(1) @ self.directions + begin).sin() @ self.mix
        return self.inner(x) + ripples  # type: ignore[no-any-return]


@pytest.mark.slow
def test_rand_averages_as_the_reference_does(make: Any) -> None:
    """Fools as many, and more than one pass per gradient does."""
    inner = make.classifier(0.5)
    x, y = make.correct(inner, 16)
    data = from_tensors(x, y, name="digits", classes=list("0123456789"))
    classifier = Classifier(
        Trembling(inner), nn.Identity(), classes=10, shape=(1, 8, 8)
    )

    def fooled(attack: EngineAttack | ReferenceAttack) -> int:
        context = Context(seed=SEED, ids=torch.arange(16), batch_size=16)
        threat = ThreatModel(norm="Linf", eps=0.2)
        found = attack.propose(classifier, x, y, threat, context)
        with seeded(0):
            return int((predict(classifier, found).argmax(dim=1) != y).sum())

    (ours, dlr) = members("rand", "Linf", "per-example")
    assert (ours.name, dlr.name) == ("apgd-ce", "apgd-dlr")
    battery = Battery(name="rand", engine="robrep", attacks=(ours, dlr))
    check_classifier(classifier, data, battery, "cpu")
    averaged, alone = fooled(ours), fooled(replace(cast(ApgdAttack, ours), averaged=1))
    theirs = fooled(ReferenceAttack(member="apgd-ce", version="rand"))
    assert abs(averaged - theirs) <= 2
    assert alone < averaged - 2, "the case must need the average"
