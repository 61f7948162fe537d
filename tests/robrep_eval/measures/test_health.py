"""Broken defences, each caught by the right flag; honest models raise none.

One file in spite of its length: one small classifier stands behind each defence.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from benchmarks.planted.defences import (
    BatchStatistics,
    OptimisedAtTestTime,
    StraightThrough,
    Wrapped,
    jpeg,
)
from robrep_eval.attacks.battery import is_black_box
from robrep_eval.attacks.pgd import ascend
from robrep_eval.measures.health import (
    Subject,
    attack,
    check_health,
    gradient,
    planted,
    second_look,
)
from robrep_eval.measures.health.black_box import white_box_beats_black_box
from robrep_eval.measures.health.full import breaks_control, twin_transfer
from robrep_eval.measures.health.gradient import (
    differentiable,
    gradient_agrees,
    gradient_nonzero,
)
from robrep_eval.measures.health.model import clean_first, deterministic
from robrep_eval.measures.health.outcome import inside_the_ball, worst_case
from robrep_eval.probes.logistic import fit_linear
from zoo import datasets
from zoo.ball import random_start
from zoo.classifier import Classifier
from zoo.collection import store
from zoo.measurements import Flag, HealthReport, Status
from zoo.records import Examples, Outcome, Verdict
from zoo.threat import ThreatModel

SHAPE = (1, 8, 8)
THREAT = ThreatModel(norm="Linf", eps=0.1)
N = 100


class RandomFeatures(nn.Module):
    """Fixed random projections and tanh: an honest encoder without training."""

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int = 300) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        weight = torch.randn(width, 64, generator=rng) / 4
        self.register_buffer("weight", weight)
        self.register_buffer("bias", -weight.sum(dim=1) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        flat = nn.functional.linear(x.flatten(1), self.weight, self.bias)
        return flat.tanh()


@cache
def honest() -> Classifier:
    """A probe on random features of the digits."""
    encoder = RandomFeatures()
    train = datasets.load("digits", "train")
    z = encoder(train.images(slice(None)))
    head = fit_linear(z, train.labels, classes=10, l2=1e-2, tolerance=1e-4)
    return Classifier(encoder, head, classes=10, shape=SHAPE)


def subject(classifier: Classifier, *, n: int = N) -> Subject:
    data = datasets.load("digits", "test").take(n)
    return Subject(
        classifier=classifier,
        x=data.images(slice(None)),
        y=data.labels,
        ids=data.positions.tolist(),
        threat=THREAT,
    )


def defended(change: Callable[[Classifier], nn.Module]) -> Classifier:
    """The honest classifier behind a broken defence."""
    return Classifier(change(honest()), nn.Identity(), classes=10, shape=SHAPE)


def saturated(inner: Classifier) -> nn.Module:
    return Wrapped(inner, after=lambda s: 1e4 * s)


def noisy(inner: Classifier) -> nn.Module:
    return Wrapped(inner, before=lambda x: x + 0.1 * torch.randn_like(x))


def detached(inner: Classifier) -> nn.Module:
    return Wrapped(inner, after=lambda s: s.detach())


def quantised(inner: Classifier) -> nn.Module:
    return Wrapped(inner, before=lambda x: (x * 4).round() / 4)


def straight_through(inner: Classifier) -> nn.Module:
    return Wrapped(inner, before=StraightThrough.apply)


def compressed(inner: Classifier) -> nn.Module:
    return Wrapped(inner, before=jpeg)


def without_number(inner: Classifier) -> nn.Module:
    """Adds the root of zero, whose slope is infinite: gradients are NaN."""
    return Wrapped(inner, before=lambda x: x + (x - x.detach()).abs().sqrt())


def scale_255(inner: Classifier) -> nn.Module:
    """Divides pixels by 255 itself, though they are in [0, 1] already."""
    return Wrapped(inner, before=lambda x: x / 255)


def softmax(inner: Classifier) -> nn.Module:
    return Wrapped(inner, after=lambda s: s.softmax(dim=1))


PLANTED = [
    (saturated, "gradient_nonzero"),
    (noisy, "deterministic"),
    (detached, "differentiable"),
    (quantised, "differentiable"),
    (straight_through, "gradient_agrees"),
    (without_number, "differentiable"),
    (compressed, "differentiable"),
    (scale_255, "input_range"),
    (softmax, "logits"),
    (BatchStatistics, "batch_independent"),
    (OptimisedAtTestTime, "static_forward"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "flag"), PLANTED, ids=[change.__name__ for change, _ in PLANTED]
)
def test_each_broken_defence_is_caught_by_the_right_flag(
    change: Callable[[Classifier], nn.Module], flag: str
) -> None:
    report = check_health(subject(defended(change), n=40))
    assert report.worst is Status.FAIL
    cause = next(one for one in report.flags if one.status is Status.FAIL)
    assert cause.check == flag, cause.summary
    assert "could not be carried out" not in cause.summary


@pytest.mark.parametrize("check", [differentiable, gradient_agrees, gradient_nonzero])
def test_a_gradient_that_is_no_number_passes_no_check(
    check: Callable[[Subject], Flag],
) -> None:
    flag = check(subject(defended(without_number), n=10))
    assert flag.status is Status.FAIL, flag.summary


def test_logits_that_are_no_number_now_and_then_are_not_deterministic() -> None:
    class Failing(nn.Module):
        """A NaN in every second pass."""

        passes = 0

        def forward(self, s: Tensor) -> Tensor:
            self.passes += 1
            return s * torch.nan if self.passes % 2 else s

    flag = deterministic(subject(defended(lambda c: nn.Sequential(c, Failing())), n=4))
    assert flag.status is Status.FAIL


def unhealthy(report: HealthReport) -> list[str]:
    return [f"{f.check}: {f.summary}" for f in report.flags if f.status != Status.PASS]


def test_an_honest_classifier_raises_no_flag() -> None:
    assert unhealthy(check_health(subject(honest()), "full")) == []


@pytest.mark.slow
def test_a_robust_encoder_raises_no_flag() -> None:
    """Withstanding attacks is not by itself suspicious."""
    encoder = store.load_encoder_by_name("tarrl-digits")
    train = datasets.load("digits", "train")
    with torch.no_grad():
        z = encoder(train.images(slice(None)))
    head = fit_linear(z, train.labels, classes=10, l2=1e-3, tolerance=1e-4)
    classifier = Classifier(encoder, head, classes=10, shape=SHAPE)
    assert unhealthy(check_health(subject(classifier, n=64))) == []


def test_an_attack_with_steps_too_short_misses_the_control(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert breaks_control(subject(honest(), n=40)).value == 0
    monkeypatch.setattr(planted, "RELATIVE_STEP", 1e-3)
    flag = breaks_control(subject(honest(), n=40))
    assert flag.status is Status.FAIL
    assert len(flag.examples) == 20


def test_a_head_that_hides_the_gradient_has_a_twin_that_shows_it() -> None:
    """Logits so large that the cross-entropy is flat to float32."""
    assert twin_transfer(subject(honest(), n=200)).status is Status.PASS
    hiding = deepcopy(honest())
    with torch.no_grad():
        for parameter in hiding.head.parameters():
            parameter.mul_(1e5)
    assert twin_transfer(subject(hiding, n=200)).status is Status.FAIL


def test_a_cut_gradient_misses_every_plant() -> None:
    flag = planted.finds_planted(subject(defended(detached), n=40))
    assert flag.status is Status.FAIL
    assert flag.value == 1


@pytest.mark.parametrize("steps", [0, 1, 2, 40])
def test_plants_are_found_by_the_first_image_that_crosses(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an attack of full length that keeps its best image."""
    some = subject(honest(), n=60)
    encoder, generator = some.classifier.encoder, some.generator()
    with torch.no_grad():
        z = encoder(some.x)
        way = encoder(random_start(some.x, some.threat, generator)) - z

    def share(images: Tensor) -> Tensor:
        along = ((encoder(images) - z) * way).sum(dim=1)
        found: Tensor = along / way.square().sum(dim=1)
        return found

    missed = torch.ones(len(z), dtype=torch.bool)
    for start in (some.x, random_start(some.x, some.threat, generator)):
        best = ascend(
            share,
            some.x,
            some.threat,
            steps=steps,
            step_size=0.1 * some.threat.eps,
            start=start,
            keep_best=True,
        )
        with torch.no_grad():
            missed &= share(best) <= 0.9
    monkeypatch.setattr(planted, "STEPS", steps)
    found = planted.missed_plants(some, encoder)
    assert found.missed == some.shown(missed)
    assert found.share == pytest.approx(float(missed.double().mean()))


def test_a_few_images_that_stand_by_chance_say_nothing() -> None:
    """The rest of sixteen falls: 2 are less than what 10% may be, 5 are more."""
    some = subject(defended(lambda x: x), n=16)
    for count, status in ((2, Status.PASS), (4, Status.PASS), (5, Status.FAIL)):
        stands = torch.zeros(7, 16, dtype=torch.bool)
        stands[-1, :count] = True
        flag = attack.large_eps_breaks(replace(some, cache={"pgd": stands}))
        assert (flag.status, flag.value) == (status, count / 16)


def test_with_two_classes_half_may_not_stand_either() -> None:
    some = subject(defended(lambda x: x), n=16)
    two = deepcopy(some.classifier)
    two.classes = 2
    stands = torch.zeros(7, 16, dtype=torch.bool)
    stands[-1, :8] = True
    found = replace(some, classifier=two, cache={"pgd": stands})
    assert attack.large_eps_breaks(found).status is Status.FAIL


class MaxPooled(nn.Module):
    """Random features with a pool, which on an empty background has ties alone."""

    dim = 16 * 16

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = [nn.Conv2d(1, 16, 3, padding=1), nn.MaxPool2d(2), nn.Flatten()]
        self.layers = nn.Sequential(*layers).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def test_a_maximum_of_equal_pixels_is_no_broken_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """White margins under a max-pool, as photographs of products have."""
    torch.manual_seed(0)
    head = nn.Linear(MaxPooled.dim, 10)
    pooled = Classifier(MaxPooled(), head, classes=10, shape=SHAPE)
    for margin in (0.0, 1.0):
        some = subject(pooled, n=40)
        some.x[:, :, :, :5] = margin
        assert gradient_agrees(some).status is Status.PASS
        monkeypatch.setattr(gradient, "ASIDE", 0.0)
        assert gradient_agrees(some).status is Status.FAIL  # of the image itself
        monkeypatch.undo()


def test_few_classes_alone_are_no_flaw() -> None:
    train = datasets.load("digits-parity", "train")
    test = datasets.load("digits-parity", "test").take(64)
    encoder = RandomFeatures()
    z = encoder(train.images(slice(None)))
    head = fit_linear(z, train.labels, classes=2, l2=1e-2, tolerance=1e-4)
    report = check_health(
        replace(
            subject(honest(), n=64),
            classifier=Classifier(encoder, head, classes=2, shape=SHAPE),
            y=test.labels,
        )
    )
    assert unhealthy(report) == []
    assert "2 classes" in report.flag("logits").summary


def with_outcomes(**columns: list[Outcome]) -> Subject:
    n = len(next(iter(columns.values())))
    examples = Examples(
        index=list(range(n)),
        label=[0] * n,
        clean_prediction=[0] * n,
        verdict=[
            Verdict.FOOLED if Outcome.FOOLED in row else Verdict.ROBUST
            for row in zip(*columns.values(), strict=True)
        ],
        outcomes=columns,
    )
    return replace(subject(honest(), n=10), examples=examples)


@pytest.mark.parametrize(
    ("guesses", "status"),
    [([0, 1] * 50, Status.PASS), ([0] * 100, Status.WARN), ([-1] * 100, Status.WARN)],
)
def test_better_than_chance_on_all_images_of_the_battery(
    guesses: list[int], status: Status
) -> None:
    """Whatever the few images say that the other checks look at; -1 is undecided."""
    found = with_outcomes(pgd=[Outcome.HELD] * 100)
    assert found.examples is not None
    update = {"label": [0, 1] * 50, "clean_prediction": guesses}
    known = replace(found, examples=found.examples.model_copy(update=update))
    flag = clean_first(known)
    assert flag.status is status
    assert flag.limit == pytest.approx(0.5 + 2 * 0.05)
    assert (
        flag.value
        == sum(a == b for a, b in zip(guesses, [0, 1] * 50, strict=True)) / 100
    )


H, F = Outcome.HELD, Outcome.FOOLED


def test_black_box_successes_are_counted_against_white_box_ones() -> None:
    honest_run = with_outcomes(pgd=[F, F, H, H] * 25, square=[F, H, H, H] * 25)
    assert white_box_beats_black_box(honest_run).status is Status.PASS
    masked = with_outcomes(pgd=[H] * 100, square=[H, F, H, H] * 25)
    flag = white_box_beats_black_box(masked)
    assert flag.status is Status.FAIL
    assert flag.value == 0.25
    assert flag.examples[:2] == [1, 5]
    assert len(flag.examples) == 20
    name = "transfer:zoo:simclr-digits"
    by_transfer = with_outcomes(**{"pgd": [H] * 100, name: [H, F, H, H] * 25})
    assert white_box_beats_black_box(by_transfer).status is Status.FAIL
    assert "not judged" in white_box_beats_black_box(subject(honest(), n=5)).summary


def test_an_attack_is_black_box_if_it_asks_for_no_gradient() -> None:
    names = ["square", "hopskipjump", "boundary", "universal", "apgd-t", "of-others"]
    assert [name for name in names if is_black_box(name, "Linf")] == names[:3]
    own = ["fast-square", "fast-rounds", "quick-margin"]
    assert [name for name in own if is_black_box(name, "Linf")] == own[:1]


@pytest.mark.parametrize(("defence", "found"), [(None, True), ("quantised", False)])
def test_a_longer_white_box_attack_tells_effort_from_masking(
    defence: str | None, found: bool
) -> None:
    """Square's successes, on images that fall to PGD when the model is honest."""
    data = datasets.load("digits", "test").take(N)
    fallen = ~attack.held(subject(honest()), attack.pgd(subject(honest()), THREAT))
    rows = [bool(x) and i < 50 for i, x in enumerate(fallen.tolist())]
    square = [F if hit else H for hit in rows]
    few = [F if hit and sum(rows[:i]) < 2 else H for i, hit in enumerate(rows)]
    model = defended(quantised) if defence else honest()
    for column, short in ((square, True), (few, False)):
        base = with_outcomes(pgd=[H] * N, square=column)
        flag = white_box_beats_black_box(replace(base, classifier=model, whole=data))
        missed = column.count(F)
        if found:
            assert flag.value == 0
            assert f"{missed} of them fall to longer ones" in flag.summary
            assert flag.status is (Status.WARN if short else Status.PASS)
        else:
            assert flag.value is not None
            assert flag.value >= missed / N / 2
            assert (flag.status is Status.FAIL) == short


@pytest.mark.parametrize(("defence", "all_fall"), [(None, True), ("quantised", False)])
def test_gradients_lead_from_half_way_to_what_was_found(
    monkeypatch: pytest.MonkeyPatch, defence: str | None, all_fall: bool
) -> None:
    """By these starts alone; and not where the way is a staircase."""
    monkeypatch.setattr(second_look, "LOOK_ROUNDS", 0)
    data = datasets.load("digits", "test").take(N)
    model = defended(quantised) if defence else honest()
    base = replace(subject(model), whole=data)
    found = attack.pgd(subject(honest()), THREAT)
    fell = ~attack.held(base, found) & attack.held(base, base.x)
    rows = fell.nonzero().flatten()[:10]
    assert second_look.second_look(base, rows).tolist() == rows.tolist()
    known = replace(base, adversarials=found[rows], owners=rows)
    assert (len(second_look.second_look(known, rows)) == 0) == all_fall


def test_a_verdict_that_does_not_follow_is_found() -> None:
    good = with_outcomes(pgd=[F, H, H])
    assert worst_case(good).status is Status.PASS
    assert good.examples is not None
    wrong = good.examples.model_copy(update={"verdict": [Verdict.ROBUST] * 3})
    flag = worst_case(replace(good, examples=wrong))
    assert (flag.status, flag.examples) == (Status.FAIL, [0])


def test_an_adversarial_outside_the_ball_is_found() -> None:
    base = subject(honest(), n=4)
    inside = replace(base, origins=base.x, adversarials=(base.x + 0.05).clamp(0, 1))
    assert inside_the_ball(inside).status is Status.PASS
    outside = replace(base, origins=base.x, adversarials=(base.x + 0.3).clamp(0, 1))
    assert inside_the_ball(outside).status is Status.FAIL
    nan = replace(base, origins=base.x, adversarials=base.x + torch.nan)
    assert inside_the_ball(nan).status is Status.FAIL
    refused = with_outcomes(pgd=[Outcome.REFUSED, H])
    assert inside_the_ball(refused).examples == [0]
