"""Attacks of other kinds: inside the ball, and right where every distance is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robrep_eval.measures.health import standing
from robrep_eval.measures.health.attack import pgd, survives
from robrep_eval.measures.health.decisions import Rays
from robrep_eval.measures.health.model import stateless
from robrep_eval.measures.health.subject import Subject
from robrep_eval.measures.health.surrogate import distilled
from zoo.ball import lengths
from zoo.classifier import Classifier
from zoo.datasets.base import from_tensors
from zoo.measurements import Status
from zoo.records import Examples, Verdict
from zoo.threat import Norm, ThreatModel

N = 40
RADII: dict[Norm, float] = {"Linf": 0.1, "L2": 0.5, "L1": 1.0}


class Plane(nn.Module):
    """Two classes on either side of a plane: every distance is known."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("weight", torch.randn(36, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        value = (x.flatten(1) - 0.5) @ self.weight
        return torch.stack([value, -value], dim=1)


def subject(threat: ThreatModel, module: nn.Module | None = None) -> Subject:
    """Images from 0.004 to 0.12 away from the plane (Linf), all correct."""
    plane = module or Plane()
    generator = torch.Generator().manual_seed(0)
    on = 0.4 + 0.2 * torch.rand(N, 36, generator=generator)
    weight = Plane().weight
    on -= ((on - 0.5) @ weight / weight.abs().sum()).unsqueeze(1) * weight.sign()
    away = torch.linspace(0.004, 0.12, N) * (torch.arange(N) % 2 * 2 - 1)
    x = (on + away.unsqueeze(1) * weight.sign()).view(N, 1, 6, 6)
    classifier = Classifier(plane, nn.Identity(), classes=2, shape=(1, 6, 6))
    with torch.no_grad():
        y = classifier(x).argmax(dim=1)
    return Subject(classifier=classifier, x=x, y=y, ids=list(range(N)), threat=threat)


def distance(some: Subject) -> Tensor:
    """To the plane, in the norm of the threat model (N,)."""
    weight = Plane().weight
    dual = {"Linf": weight.abs().sum(), "L2": weight.norm(), "L1": weight.abs().max()}
    value: Tensor = (some.x.flatten(1) - 0.5) @ weight
    away: Tensor = value.abs() / dual[some.threat.norm]
    return away


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_what_decisions_alone_find_is_wrong_and_in_the_ball(norm: Norm) -> None:
    some = subject(ThreatModel(norm=norm, eps=RADII[norm]))

    def wrong(images: Tensor, labels: Tensor) -> Tensor:
        return some.logits(images).argmax(dim=1) != labels

    rays = Rays(wrong, some.x, some.y, some.threat, queries=300)
    images = rays.images(some.x[:8], some.y[:8])
    assert bool((lengths(images - some.x, norm) <= some.threat.eps + 1e-5).all())
    assert max(rays.asked) <= 300 + 8
    fell = wrong(images, some.y)
    assert not bool((fell & (distance(some) > some.threat.eps * 1.001)).any())
    if norm == "Linf":  # where directions of signs hold the best one
        near = distance(some) < 0.5 * some.threat.eps
        assert int(near.sum()) > 5
        assert bool(fell[near].float().mean() > 0.8)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_pgd_that_leaves_early_holds_what_a_plane_holds(norm: Norm) -> None:
    some = subject(ThreatModel(norm=norm, eps=RADII[norm] / 2))
    ratio = distance(some) / some.threat.eps
    sure = (ratio < 0.9) | (ratio > 1.001)
    assert bool((survives(some, [some.threat])[0] == (ratio > 1))[sure].all())
    whole = pgd(some, some.threat)
    stands = some.logits(whole).argmax(dim=1) == some.y
    assert bool((survives(some, [some.threat])[0] == stands)[sure].all())


def with_verdicts(some: Subject, stands: Tensor) -> Subject:
    verdicts = [Verdict.ROBUST if s else Verdict.FOOLED for s in stands.tolist()]
    examples = Examples(
        index=list(range(N)),
        label=some.y.tolist(),
        clean_prediction=some.y.tolist(),
        verdict=verdicts,
    )
    data = from_tensors(some.x, some.y, name="some", classes=["a", "b"])
    return replace(some, examples=examples, whole=data, cache={})


CHECKS = (standing.other_losses, standing.decision_probe, standing.surrogate)


@pytest.mark.parametrize("check", CHECKS, ids=lambda one: one.__name__)
def test_a_figure_that_holds_passes_and_one_that_does_not_is_named(check) -> None:  # type: ignore[no-untyped-def]
    some = subject(ThreatModel(norm="Linf", eps=0.05))
    truth = distance(some) > some.threat.eps
    assert 5 < int(truth.sum()) < N - 5
    assert check(with_verdicts(some, truth)).status is Status.PASS
    flag = check(with_verdicts(some, torch.ones(N, dtype=torch.bool)))
    assert flag.status is Status.FAIL, flag.summary
    assert not bool(truth[flag.examples].any())
    nothing = check(with_verdicts(some, torch.zeros(N, dtype=torch.bool)))
    assert (nothing.status, nothing.value) == (Status.PASS, None)


def test_a_copy_learns_decisions_alone() -> None:
    some = subject(ThreatModel(norm="Linf", eps=0.02))
    generator = torch.Generator().manual_seed(0)
    copy = distilled(some.x, some.y, 2, some.threat, generator)
    with torch.no_grad():
        assert float((copy(some.x).argmax(dim=1) == some.y).float().mean()) > 0.9


class Counts(nn.Module):
    """Adds how often it was asked to the first logit."""

    def __init__(self) -> None:
        super().__init__()
        self.plane, self.asked = Plane(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        s: Tensor = self.plane(x)
        return s + torch.tensor([0.01 * self.asked, 0.0])


class Noisy(Plane):
    """Random, but without a memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


@pytest.mark.parametrize(("module", "passes"), [(Plane, 1), (Noisy, 1), (Counts, 0)])
def test_memory_is_told_from_noise(module: type[nn.Module], passes: int) -> None:
    some = subject(ThreatModel(norm="Linf", eps=0.05), module())
    assert (stateless(some).status is Status.PASS) == bool(passes)


def test_a_prediction_that_is_no_longer_the_recorded_one_is_a_state() -> None:
    some = with_verdicts(
        subject(ThreatModel(norm="Linf", eps=0.05)), torch.ones(N, dtype=torch.bool)
    )
    assert some.examples is not None
    assert stateless(some).status is Status.PASS
    before = [1 - some.examples.clean_prediction[0], *some.y.tolist()[1:]]
    other = some.examples.model_copy(update={"clean_prediction": before})
    flag = stateless(replace(some, examples=other))
    assert (flag.status, flag.examples) == (Status.FAIL, [0])
