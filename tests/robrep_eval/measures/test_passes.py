"""What saves passes finds what costs more of them found, and the floor is bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robrep_eval.attacks.displacement import FeatureAttackSettings, displace
from robrep_eval.measures.health import (
    Subject,
    attack,
    check_health,
    gradient,
    standing,
)
from robrep_eval.measures.health.decisions import Rays
from robrep_eval.measures.health.gradient import gradient_agrees
from robrep_eval.measures.health.surrogate import _Adam
from zoo.affordable import HEALTH, LEAST, PER_IMAGE, STANDING
from zoo.ball import project, random_start, steepest
from zoo.classifier import Classifier
from zoo.layout import Layout
from zoo.measurements import Status
from zoo.threat import Norm, ThreatModel

N = 24
EPS: dict[Norm, float] = {"Linf": 0.04, "L2": 0.3, "L1": 2.0}


class Net(nn.Module):
    """A small convolutional network, which counts the images that pass through it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1),
                nn.Tanh(),
                nn.Flatten(),
                nn.Linear(288, 4),
            )
        self.rows = self.largest = 0
        """Images forward, and twice where a gradient follows; those of one pass."""

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x) * (2 if x.requires_grad else 1)
        self.largest = max(self.largest, len(x))
        return self.layers(x)  # type: ignore[no-any-return]


def subject(threat: ThreatModel, module: nn.Module, **others: object) -> Subject:
    """Random images with the module's own classes."""
    x = torch.rand(N, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    module = module.eval().requires_grad_(False)
    classifier = Classifier(module, nn.Identity(), classes=4, shape=(1, 6, 6))
    with torch.no_grad():
        y = classifier(x).argmax(dim=1)
    made = Subject(classifier=classifier, x=x, y=y, ids=list(range(N)), threat=threat)
    return replace(made, **others)  # type: ignore[arg-type]


def plainly(some: Subject, threat: ThreatModel) -> Tensor:
    """All steps for all images, one ball alone."""
    stands = some.logits(some.x).argmax(dim=1) == some.y
    at = random_start(some.x, threat, some.generator())
    for _ in range(attack.STEPS):
        leaf = at.requires_grad_()
        given = some.classifier(leaf)
        stands &= given.argmax(dim=1) == some.y
        loss = nn.functional.cross_entropy(given, some.y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, leaf)
        ahead = at.detach() + 0.1 * threat.eps * steepest(slope, threat.norm)
        at = project(ahead, some.x, threat)
    return stands & (some.logits(at).argmax(dim=1) == some.y)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_radii_that_share_passes_hold_what_each_holds_alone(norm: Norm) -> None:
    net = Net()
    some = subject(ThreatModel(norm=norm, eps=EPS[norm]), net)
    balls = [ThreatModel(norm=norm, eps=f * EPS[norm]) for f in (0.25, 1.0, 4.0)]
    wanted = torch.stack([plainly(some, ball) for ball in balls])
    assert 0 < int(wanted[1].sum()) < N
    net.rows = 0
    assert torch.equal(attack.survives(some, balls), wanted)
    spent = net.rows
    if norm == "Linf":  # iterates of signs repeat
        assert spent < 2 * attack.STEPS * int(wanted.sum())
        small = replace(some, layout=Layout(batch_size=5))
        assert torch.equal(attack.survives(small, balls), wanted)


@pytest.mark.parametrize("size", [4, 7])
def test_no_pass_is_larger_than_the_layout_says(size: int) -> None:
    """Less than one image at every radius, and less than all draws of two."""
    net = Net()
    some = subject(ThreatModel(norm="Linf", eps=0.04), net)
    wanted = attack.at_radii(some)
    small = replace(some, layout=Layout(batch_size=size), cache={})
    assert len(wanted) == 6
    assert int(wanted[0].sum()) > 3
    net.largest = 0
    assert torch.equal(attack.at_radii(small), wanted)
    standing.surrogate(small)
    assert 3 < net.largest <= size


class Flickering(Net):
    """One answer that turns wrong after so many passes, without a slope."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        given = super().forward(x.detach()) + 0 * x.flatten(1).sum(dim=1, keepdim=True)
        return given if self.left >= 0 else -given


def test_what_changes_from_pass_to_pass_is_asked_to_the_end() -> None:
    threat = ThreatModel(norm="Linf", eps=0.001)
    for repeat, stands in ((0.0, True), (1.0, False)):
        some = subject(threat, Flickering(20))
        some.cache["repeat"] = repeat
        few = replace(some, x=some.x[:1], y=some.y[:1])
        assert bool(attack.survives(few, [threat])) == stands


class WrongFor(nn.Module):
    """Claims another slope than it has for bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor) -> Tensor:
        bright = (x.detach().flatten(1).mean(dim=1) > 0.5).view(-1, 1, 1, 1)
        lying = x.detach() + 3 * (x - x.detach())
        return self.net(torch.where(bright, lying, x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("wrong", [0, N // 2 - 1, N // 2, N // 2 + 1, N])
@pytest.mark.parametrize("first", [True, False])
def test_a_gradient_is_wrong_where_that_of_most_images_is(
    wrong: int, first: bool
) -> None:
    """Wherever they stand among those that are looked at."""
    some = subject(ThreatModel(norm="Linf", eps=0.1), WrongFor())
    dark = 0.4 * some.x
    lit = torch.arange(N) < wrong if first else torch.arange(N) >= N - wrong
    some = replace(some, x=torch.where(lit.view(-1, 1, 1, 1), dark + 0.6, dark))
    failed = gradient_agrees(some).status is Status.FAIL
    assert failed == (wrong > N // 2)


def test_what_agrees_is_asked_half_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Net] = []

    def copied(module: nn.Module) -> nn.Module:
        net = module.encoder
        assert isinstance(net, Net)
        net.rows = 0
        made.append(net)
        return module.double()

    monkeypatch.setattr(gradient, "double", copied)
    some = subject(ThreatModel(norm="Linf", eps=0.1), Net())
    assert gradient_agrees(some).status is Status.PASS
    assert [net.rows for net in made] == [7 * N // 2]


def test_a_search_finds_in_company_what_it_finds_alone() -> None:
    some = subject(ThreatModel(norm="Linf", eps=0.02), Net())

    def wrong(images: Tensor, labels: Tensor) -> Tensor:
        return some.logits(images).argmax(dim=1) != labels

    def search(rows: slice) -> Rays:
        rays = Rays(wrong, some.x[rows], some.y[rows], some.threat, queries=80)
        found = rays.images(some.x[:8], some.y[:8])
        assert found.shape == some.x[rows].shape
        return rays

    every = search(slice(None))
    assert len(set(every.asked)) > 3
    for row in range(0, N, 5):
        alone = search(slice(row, row + 1))
        assert alone.asked == every.asked[row : row + 1]
        assert alone.radius == every.radius[row : row + 1]


def test_restarts_in_the_same_passes_come_as_far() -> None:
    net, x = Net().eval().requires_grad_(False), torch.rand(10, 1, 6, 6)
    threat, settings = (
        ThreatModel(norm="Linf", eps=0.05),
        FeatureAttackSettings(steps=10, restarts=3),
    )
    one, several = (
        displace(net, x, threat, settings, Layout(batch_size=size)) for size in (10, 30)
    )
    assert torch.allclose(one, several, atol=1e-6)
    assert not torch.equal(one, x)


def test_the_student_learns_as_by_the_library() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator)
    own = [torch.randn(5, 3, generator=generator, requires_grad=True)]
    other = [own[0].detach().clone().requires_grad_()]
    adam = _Adam(own)
    library = torch.optim.Adam(other, lr=adam.RATE, weight_decay=adam.SHRINK)
    for _ in range(100):
        adam.step(((x @ own[0].T).square() - 1).square().mean())
        library.zero_grad()
        ((x @ other[0].T).square() - 1).square().mean().backward()
        library.step()
    assert torch.allclose(own[0], other[0], atol=1e-5)


class Steadfast(Net):
    """Says the same class whatever it sees, with a slope."""

    def forward(self, x: Tensor) -> Tensor:
        given = super().forward(x)
        return given * 0.01 + torch.linspace(0, 9, 4).to(given)


@pytest.mark.parametrize("module", [Steadfast, Net])
def test_the_checks_cost_no_more_than_is_counted_for_them(module: type[Net]) -> None:
    """Where nothing falls, and where much does."""
    net = module()
    some = subject(ThreatModel(norm="Linf", eps=0.05), net, standing=LEAST[STANDING])
    some = replace(some, x=some.x[: LEAST[HEALTH]], y=some.y[: LEAST[HEALTH]], cache={})
    net.rows = 0
    check_health(some)
    most = PER_IMAGE[HEALTH] * LEAST[HEALTH] + PER_IMAGE[STANDING] * LEAST[STANDING]
    assert net.rows <= most
