"""Label-free measures against slow loops written from their definitions."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robrep_eval import evaluate
from robrep_eval.attacks.displacement import (
    DisplacementAttack,
    FeatureAttackSettings,
    approach,
    displace,
)
from robrep_eval.measures.base import Measurement
from robrep_eval.measures.bound import EstimatedBound
from robrep_eval.measures.label_free import (
    WithoutLabels,
    breakaway,
    margin_ratios,
    measure_label_free,
    other_class,
    pair_distances,
    partners,
    remaining_ratios,
    universal_quantiles,
)
from zoo.ball import lengths
from zoo.classifier import Classifier
from zoo.errors import UserError
from zoo.layout import Layout
from zoo.threat import Norm, ThreatModel

SHAPE = (1, 3, 4)
THREAT = ThreatModel(norm="Linf", eps=0.1)


def rows(seed: int, n: int = 12, dim: int = 3) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def far(a: Tensor, b: Tensor) -> float:
    return math.dist(a.double().tolist(), b.double().tolist())


def test_universal_quantile_by_counting_pairs() -> None:
    z, z_adv = rows(0), rows(0) + 0.5 * rows(1)
    n = len(z)
    pairs = [far(z[i], z[j]) for i in range(n) for j in range(i)]
    want = [sum(d <= far(z[i], z_adv[i]) for d in pairs) / len(pairs) for i in range(n)]
    got = universal_quantiles(z, z_adv, pair_distances(z))
    assert got.tolist() == pytest.approx(want, abs=1e-6)


def test_breakaway_by_counting_all_candidates() -> None:
    z, z_adv = rows(2), rows(2) + 0.8 * rows(3)
    n = len(z)
    nearer = [
        sum(far(z_adv[i], z[j]) < far(z_adv[i], z[i]) for j in range(n) if j != i)
        for i in range(n)
    ]
    risk, top1, top5 = breakaway(z, z_adv)
    assert risk == pytest.approx(sum(nearer) / (n * (n - 1)))
    assert top1 == pytest.approx(sum(k == 0 for k in nearer) / n)
    assert top5 == pytest.approx(sum(k <= 4 for k in nearer) / n)
    assert 0 < top1 < top5 <= 1


def test_margin_and_remaining_distance_from_their_definitions() -> None:
    z, z_adv = rows(4), rows(4) + 0.5 * rows(5)
    partner = partners(len(z), torch.Generator().manual_seed(0))
    margin = [
        (far(z[i], z_adv[j]) - far(z[i], z_adv[i])) / far(z[i], z[j])
        for i, j in enumerate(partner.tolist())
    ]
    assert margin_ratios(z, z_adv, partner).tolist() == pytest.approx(margin)
    left = [
        far(z_adv[i], z[j]) / far(z[i], z[j]) for i, j in enumerate(partner.tolist())
    ]
    got = remaining_ratios(z, z_adv, z[partner])
    assert got.tolist() == pytest.approx(left)


def test_pairs_are_mutual_and_targets_of_another_class() -> None:
    partner = partners(20, torch.Generator().manual_seed(3))
    assert partner[partner].tolist() == list(range(20))
    assert not bool((partner == torch.arange(20)).any())
    y = torch.tensor([0, 0, 0, 1, 2])
    chosen = other_class(y, torch.Generator().manual_seed(1))
    assert bool((y[chosen] != y).all())
    with pytest.raises(UserError, match="two classes"):
        other_class(torch.zeros(4, dtype=torch.int64), torch.Generator())


class Linear(nn.Module):
    """A linear encoder: the farthest displacement in an L2 ball is its largest
    singular value times eps."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = nn.functional.linear(x.flatten(1), rows(6, 5, 12))
        return z


def inner_images(n: int = 20) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return 0.4 + 0.2 * torch.rand(n, *SHAPE, generator=rng)


def test_displacement_reaches_the_spectral_norm() -> None:
    encoder, x = Linear(), inner_images()
    threat = ThreatModel(norm="L2", eps=0.1)
    settings = FeatureAttackSettings(steps=200, relative_step=0.5)
    found = displace(encoder, x, threat, settings)
    moved = (encoder(found) - encoder(x)).norm(dim=1)
    want = 0.1 * torch.linalg.matrix_norm(rows(6, 5, 12), ord=2)
    torch.testing.assert_close(moved, want.expand(20), rtol=1e-3, atol=0)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_feature_attacks_stay_in_the_ball_and_do_their_work(norm: Norm) -> None:
    encoder, x = Linear(), inner_images()
    threat = ThreatModel(norm=norm, eps=0.1)
    settings = FeatureAttackSettings(steps=20)
    layout = Layout(batch_size=7)
    targets = encoder(x.flip(0))
    before = (encoder(x) - targets).norm(dim=1)
    for found in (
        displace(encoder, x, threat, settings, layout),
        approach(encoder, x, targets, threat, settings, layout),
    ):
        size = lengths(found.double() - x.double(), norm)
        assert float(size.max()) <= 0.1 + threat.tolerance(SHAPE)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
    nearer = (encoder(found) - targets).norm(dim=1)
    assert bool((nearer < before).all())


def test_more_restarts_never_move_less() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh()).eval()
    x = inner_images()

    def moved(restarts: int) -> Tensor:
        settings = FeatureAttackSettings(steps=3, restarts=restarts)
        found = displace(encoder, x, THREAT, settings, Layout(batch_size=50))
        return lengths((encoder(found) - encoder(x)).detach(), "L2")

    assert bool((moved(3) >= moved(1) - 1e-6).all())


def test_all_measures_of_one_encoder() -> None:
    encoder, x = Linear(), inner_images(21)
    head = nn.Linear(5, 3)
    classifier = Classifier(encoder, head, classes=3, shape=SHAPE)
    y = classifier(x).argmax(dim=1)
    if len(y.unique()) < 2:  # any labels will do, as long as some are right
        y[:5] = (y[:5] + 1) % 3
    weak = measure_label_free(
        encoder, x, ThreatModel(norm="Linf", eps=1e-4), classifier=classifier, y=y
    )
    strong = measure_label_free(encoder, x, ThreatModel(norm="Linf", eps=0.4))
    assert weak.n == 20
    assert weak.universal_quantile < strong.universal_quantile
    assert weak.remaining_distance_ratio > strong.remaining_distance_ratio
    assert weak.breakaway_risk == 0 < strong.breakaway_risk
    assert weak.nearest_top1 == 1 > strong.nearest_top1
    assert weak.overlap_risk == 0
    assert strong.impersonation is None
    with pytest.raises(UserError, match="at least 10"):
        measure_label_free(encoder, x[:4], THREAT)


def test_the_median_lies_between_the_middle_ones() -> None:
    from robrep_eval.measures.label_free import _median

    values = [0.1, 0.4, 0.9, 0.3]
    assert _median(torch.tensor([*values, math.nan])) == pytest.approx(
        statistics.median(values)
    )


def test_as_an_attack_it_tells_its_settings() -> None:
    attack = DisplacementAttack(steps=7)
    assert attack.parameters["steps"] == 7
    assert attack.parameters["start"] == "uniform in the ball"


def test_equal_features_have_no_ratio() -> None:
    """Neither where the attack moved nothing, nor where it moved something."""
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [4.0, 4.0]])
    moved = z + torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    partner = torch.tensor([1, 0, 3, 2])
    left = remaining_ratios(z, moved, z[partner])
    assert left.isnan().tolist() == [True, True, False, False]
    assert left[2:].tolist() == pytest.approx([1.0, math.sqrt(34) / 5])
    assert margin_ratios(z, moved, partner).isnan().tolist() == [
        *(True, True, False, False),
    ]


def test_a_collapsed_encoder_is_told_so() -> None:
    linear = nn.Linear(math.prod(SHAPE), 3)
    nn.init.zeros_(linear.weight)
    encoder = nn.Sequential(nn.Flatten(), linear)
    with pytest.raises(UserError, match="have the features of their partners"):
        measure_label_free(encoder, inner_images(), ThreatModel(norm="Linf", eps=0.1))


@pytest.mark.parametrize(
    ("measure", "limit", "message"),
    [
        (WithoutLabels(), 8, "at least 10 images, not 8"),
        (WithoutLabels(metric="whitend"), 12, "metric 'whitend' is none of"),
        (WithoutLabels(metric="whitened"), 64, "64 images, 64 features"),
        (EstimatedBound(metric="white"), 12, "metric 'white' is none of"),
        (EstimatedBound(metric="whitened"), 64, "64 images, 64 features"),
        (EstimatedBound(metric="whitened", images=60), 80, "60 images, 64 features"),
    ],
)
def test_what_is_bound_to_fail_is_refused_before_any_work(
    measure: Measurement[Any], limit: int, message: str
) -> None:
    stages: list[str] = []
    with pytest.raises(UserError, match=message):
        evaluate(
            "zoo:tarrl-digits",
            attacks="fgsm",
            limit=limit,
            measure=(measure,),
            output=None,
            on_stage=stages.append,
        )
    assert stages == []


def test_a_whitened_bound_takes_images_enough() -> None:
    """A plain one takes 16; this one 4 for each of 64 features, if there are."""
    found = evaluate(
        "zoo:tarrl-digits",
        attacks="fgsm",
        limit=100,
        measure=(EstimatedBound(metric="whitened", steps=1, restarts=1),),
        output=None,
    ).measurements.bound
    assert found is not None
    assert found.settings["images"] == 100
