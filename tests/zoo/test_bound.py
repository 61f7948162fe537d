"""The bound against attacks on random heads, margins against search, limits by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.bound import (
    bound_b1,
    bound_b2,
    estimate_bound,
    halfway,
    head_constants,
    limits,
    margins,
    median_distance,
    reach,
)
from zoo.classifier import Classifier, double
from zoo.errors import UserError
from zoo.margins import cross_entropy
from zoo.measurements import Limit

SHAPE = (1, 4, 4)


def random_problem(seed: int, classes: int = 4, dim: int = 6) -> tuple[Tensor, ...]:
    """Head (K, d), bias (K,), features (8, d), displaced features, labels."""
    rng = torch.Generator().manual_seed(seed)
    scale = 10 ** (4 * torch.rand(1, generator=rng) - 2)
    weight = torch.randn(classes, dim, generator=rng) * scale
    bias = torch.randn(classes, generator=rng)
    z = torch.randn(8, dim, generator=rng)
    moved = z + torch.randn(8, dim, generator=rng) * torch.rand(8, 1, generator=rng)
    return weight, bias, z, moved, torch.randint(classes, (8,), generator=rng)


@given(st.integers(0, 2**31 - 1), st.integers(2, 12))
@settings(max_examples=1500, deadline=None)
def test_no_displaced_feature_exceeds_the_bound(seed: int, classes: int) -> None:
    weight, bias, z, moved, y = random_problem(seed, classes)
    w, b = weight.double(), bias.double()
    radius = (moved - z).double().norm(dim=1)
    logits = z.double() @ w.T + b
    loss = cross_entropy(moved.double() @ w.T + b, y)
    b1, b2 = bound_b1(logits, y, weight, radius), bound_b2(logits, y, weight, radius)
    slack = 1e-9 * (1 + b1)
    assert bool((loss <= b2 + slack).all())
    assert bool((b2 <= b1 + slack).all())


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=200, deadline=None)
def test_the_estimate_covers_every_attack_of_a_nonlinear_encoder(seed: int) -> None:
    # A poor displacement attack (it stays put) beside others: R over all of them.
    rng = torch.Generator().manual_seed(seed)
    classifier = small_classifier(seed)
    x = torch.rand(6, *SHAPE, generator=rng)
    y = torch.randint(3, (6,), generator=rng)
    candidates = {
        "displacement": x,
        "noise": (x + 0.3 * torch.randn(x.shape, generator=rng)).clamp(0, 1),
        "other": torch.rand(x.shape, generator=rng),
    }
    found = estimate_bound(classifier, x, y, candidates)
    rows = found.examples
    for images in candidates.values():
        loss = cross_entropy(double(classifier)(images.double()), y)
        assert np.all(loss.numpy() <= np.array(rows["b2"]) + 1e-5)
    assert found.adversarial_loss <= found.b2 <= found.b1
    assert sum(found.limits.values()) == len(x)
    assert sum(found.strongest.values()) <= len(x)


def test_two_classes_have_a_closed_form() -> None:
    # l = softplus(-t) for t = s_y - s_other; the worst case lowers t by |w| R exactly.
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    logits = torch.tensor([[2.0, 0.0]])
    y, radius = torch.tensor([0]), torch.tensor([0.5])
    want = math.log1p(math.exp(-2 + 5 * 0.5))
    assert float(bound_b2(logits, y, weight, radius)) == pytest.approx(want, rel=1e-12)
    clean = math.log1p(math.exp(-2))
    want = clean + 5 * 0.5
    assert float(bound_b1(logits, y, weight, radius)) == pytest.approx(want, rel=1e-12)


def test_the_head_constant_bounds_the_gradient_and_is_reached_nowhere_above() -> None:
    weight, bias, z, _, y = random_problem(7)
    leaf = z.double().requires_grad_()
    loss = cross_entropy(leaf @ weight.double().T + bias, y)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert bool((gradient.norm(dim=1) <= head_constants(weight, y)).all())
    shifted = weight + torch.randn(1, weight.shape[1])  # softmax does not change
    torch.testing.assert_close(
        head_constants(shifted, y), head_constants(weight, y), rtol=1e-5, atol=1e-6
    )


def test_margins_are_where_the_prediction_flips() -> None:
    # Walk from z towards each boundary: the nearest flip is at the margin.
    weight, bias, z, _, _ = random_problem(3)
    w, b = weight.double(), bias.double()
    logits = z.double() @ w.T + b
    found = margins(logits, weight)
    for row, point in enumerate(z.double()):
        own = int(logits[row].argmax())
        flips = []
        for j in set(range(len(w))) - {own}:
            direction = (w[j] - w[own]) / (w[j] - w[own]).norm()
            low, high = 0.0, 1e4
            for _ in range(80):
                middle = (low + high) / 2
                s = w @ (point + middle * direction) + b
                low, high = (middle, high) if s[own] > s[j] else (low, middle)
            flips.append(high)
        assert float(found[row]) == pytest.approx(min(flips), rel=1e-9)


def test_equal_rows_have_no_boundary_between_them() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert margins(torch.tensor([[2.0, 1.0]]), weight).tolist() == [math.inf]
    assert margins(torch.tensor([[1.0, 1.0]]), weight).tolist() == [0.0]


def test_what_limits_an_example() -> None:
    kinds = limits(
        correct=torch.tensor([False, True, True, True]),
        margin=torch.tensor([9.0, 2.0, 0.5, 0.5]),
        displacement=torch.tensor([0.0, 1.0, 1.0, 1.0]),
        room=torch.tensor([9.0, 9.0, 1.5, 0.8]),
    )
    assert kinds == [Limit.FIT, Limit.NONE, Limit.HEAD, Limit.ENCODER]


def test_halfway_and_scale_by_hand() -> None:
    z = torch.tensor([[0.0, 0.0], [0.0, 4.0], [3.0, 0.0]])
    assert halfway(z, torch.tensor([0, 1, 0])).tolist() == [2.0, 2.0, 2.5]
    assert halfway(z, torch.tensor([1, 1, 1])).tolist() == [math.inf] * 3
    assert median_distance(z) == 4.0  # of 3, 4, 5


def test_reach_names_the_attack_that_moved_farthest() -> None:
    classifier = Classifier(
        nn.Flatten(), nn.Linear(16, 2, bias=False), classes=2, shape=SHAPE
    )
    x = torch.zeros(2, *SHAPE)
    near, far = x + 0.1, x + 0.5
    found = reach(classifier, x, torch.tensor([0, 1]), {"near": near, "far": far})
    assert found.by.tolist() == [1, 1]
    assert found.displacement.tolist() == pytest.approx([0.5 * 4] * 2, rel=1e-6)


def planar(weight: list[list[float]], bias: float = 0.0) -> Classifier:
    """Two pixels are the two features; the bias is that of the first class."""
    head = nn.Linear(2, len(weight))
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weight))
        head.bias.zero_()
        head.bias[0] = bias
    return Classifier(nn.Flatten(), head, classes=len(weight), shape=(1, 1, 2))


def pictures(points: list[tuple[float, float]]) -> Tensor:
    return torch.tensor(points).view(-1, 1, 1, 2)


# Label, feature, moved to, what limits it: the head 2 (z_0, z_1) decides by the larger.
PLANE = [
    (0, (0.9, 0.1), (0.8, 0.1), Limit.NONE),
    (1, (0.1, 0.9), (0.2, 0.9), Limit.NONE),
    (1, (0.0, 0.9), (0.1, 0.9), Limit.NONE),
    (0, (0.6, 0.5), (0.525, 0.5), Limit.HEAD),  # 0.075: margin 0.071, room 0.078
    (1, (0.5, 0.62), (0.8, 0.62), Limit.ENCODER),
    (1, (0.5, 0.7), (0.9, 0.7), Limit.ENCODER),
    (0, (0.2, 0.5), (0.2, 0.5), Limit.FIT),
]


@pytest.mark.parametrize(
    ("rows", "limited_by"),
    [
        (PLANE, Limit.ENCODER),
        ([*PLANE[:3], *PLANE[6:] * 2], Limit.FIT),
        ([*PLANE[:4], *PLANE[3:5]], Limit.HEAD),
        (PLANE[:3], Limit.NONE),
    ],
)
def test_an_encoder_is_limited_by_what_fails_most_of_those_that_fail(
    rows: list[tuple[int, tuple[float, float], tuple[float, float], Limit]],
    limited_by: Limit,
) -> None:
    y = torch.tensor([label for label, *_ in rows])
    x, moved = pictures([r[1] for r in rows]), pictures([r[2] for r in rows])
    found = estimate_bound(planar([[2.0, 0.0], [0.0, 2.0]]), x, y, {"moved": moved})
    kinds = [kind for *_, kind in rows]
    assert found.limits == {kind: kinds.count(kind) for kind in Limit}
    assert found.estimated_robust.k == kinds.count(Limit.NONE)
    assert found.limited_by is limited_by


def test_the_columns_and_tightness_by_plain_arithmetic() -> None:
    weight = [[2.0, 0.0], [0.0, 3.0], [-1.0, 1.0]]
    features = [(0.9, 0.25), (0.25, 0.75), (0.5, 0.125)]
    candidates = {
        "a": [(0.75, 0.5), (0.5, 0.75), (0.5, 0.25)],
        "b": [(0.875, 0.25), (0.25, 0.25), (0.0, 0.5)],
    }
    labels = [0, 1, 2]

    def scores(z: tuple[float, float]) -> list[float]:
        return [w[0] * z[0] + w[1] * z[1] for w in weight]

    def loss(z: tuple[float, float], label: int) -> float:
        s = scores(z)
        return math.log(sum(math.exp(value) for value in s)) - s[label]

    def apart(j: int, k: int) -> float:
        return math.dist(weight[j], weight[k])

    want: dict[str, list[float]] = {"margin": [], "adversarial_loss": [], "b2": []}
    strongest = dict.fromkeys(candidates, 0)
    for at, (z, label) in enumerate(zip(features, labels, strict=True)):
        s = scores(z)
        top = s.index(max(s))
        others = [j for j in range(3) if j != top]
        want["margin"].append(min((s[top] - s[j]) / apart(top, j) for j in others))
        reached = [z, *(points[at] for points in candidates.values())]
        want["adversarial_loss"].append(max(loss(point, label) for point in reached))
        moved = {name: math.dist(points[at], z) for name, points in candidates.items()}
        radius = max(moved.values())
        strongest[max(moved, key=lambda name: moved[name])] += 1
        terms = [s[j] - s[label] + apart(j, label) * radius for j in range(3)]
        want["b2"].append(math.log(sum(map(math.exp, terms))))
    images = {name: pictures(points) for name, points in candidates.items()}
    found = estimate_bound(
        planar(weight), pictures(features), torch.tensor(labels), images
    )
    for name, values in want.items():
        assert found.examples[name] == pytest.approx(values, rel=1e-6), name
    assert found.b2 == pytest.approx(sum(want["b2"]) / 3, rel=1e-6)
    tightness = sum(want["adversarial_loss"]) / sum(want["b2"])
    assert found.tightness == pytest.approx(tightness, rel=1e-6)
    assert tightness < 0.9
    assert found.strongest == strongest == {"a": 1, "b": 2}


def test_a_margin_without_end_is_the_largest_number_of_a_record() -> None:
    """Classes with equal rows have no boundary between them; JSON has no infinity."""
    classifier = planar([[1.0, 0.0], [1.0, 0.0]], bias=1.0)
    x = pictures([(0.5, 0.5)])
    found = estimate_bound(classifier, x, torch.tensor([0]), {"still": x})
    assert found.examples["margin"] == [torch.finfo(torch.float32).max]


def test_a_ready_made_classifier_is_refused() -> None:
    classifier = Classifier(nn.Flatten(), nn.Identity(), classes=16, shape=SHAPE)
    with pytest.raises(UserError, match="linear head"):
        estimate_bound(classifier, torch.rand(2, *SHAPE), torch.tensor([0, 1]), {})


def small_classifier(seed: int) -> Classifier:
    """A random tanh encoder with a random head; no global generator is touched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh())
        return Classifier(encoder, nn.Linear(5, 3), classes=3, shape=SHAPE)
