"""Certificates against the exact worst case of linear encoders and against attacks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from robrep_eval import evaluate
from robrep_eval.attacks.pgd import ascend
from robrep_eval.commands.display import footnotes
from robrep_eval.measures.bound import EstimatedBound
from robrep_eval.measures.lipschitz import LipschitzMargins
from robrep_eval.probes.linear import ProbeSettings
from zoo.classifier import Classifier, predict
from zoo.collection.store import load_encoder_by_name
from zoo.encoder import Encoder, EncoderSpec
from zoo.errors import UserError
from zoo.lipschitz import certify_lipschitz, lipschitz_constant
from zoo.measurements import Measurements
from zoo.nets.lipschitz import MaxMin
from zoo.records import Verdict
from zoo.threat import Norm, ThreatModel

pytestmark = pytest.mark.slow


SHAPE = (1, 4, 4)


def encoder(widths: list[int], *, std: float = 1.0, seed: int = 0) -> Encoder:
    spec = EncoderSpec(
        arch="lipschitz_dense",
        options={"size": 4, "widths": widths},
        shape=SHAPE,
        std=(std,),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder(spec).eval()


def classifier(widths: list[int], classes: int, *, seed: int = 0) -> Classifier:
    body = encoder(widths, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        return Classifier(
            body, nn.Linear(widths[-1], classes), classes=classes, shape=SHAPE
        )


@pytest.mark.parametrize("norm", ["L2", "Linf", "L1"])
def test_one_linear_layer_is_certified_up_to_its_exact_radius(norm: Norm) -> None:
    # An orthogonal layer and two classes: the true L2 radius is the margin itself.
    found = classifier([16], 2)
    linear = next(found.encoder.backbone.linears())  # type: ignore[union-attr,operator]
    nn.init.orthogonal_(linear.weight, generator=torch.Generator().manual_seed(2))
    x = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(1))
    y = predict(found, x).argmax(dim=1)
    certificate = certify_lipschitz(found, x, y, ThreatModel(norm=norm, eps=0.02))
    head = found.linear
    assert head is not None
    direction = (head.weight[0] - head.weight[1]) @ linear.weight
    gaps = predict(found, x) @ torch.tensor([1.0, -1.0])
    exact = gaps.abs() / direction.norm()
    share = {"L2": 1.0, "L1": 1.0, "Linf": 1 / math.sqrt(16)}[norm]
    torch.testing.assert_close(
        torch.tensor(certificate.radius), exact * share, rtol=1e-3, atol=2e-4
    )
    assert bool((torch.tensor(certificate.radius) <= exact * share).all())


def test_no_pair_of_images_exceeds_the_constant() -> None:
    body = encoder([32, 16, 8], std=0.5, seed=3)
    bound = lipschitz_constant(body)
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(2000, *SHAPE, generator=rng)
    other = x + 1e-2 * torch.randn(x.shape, generator=rng)
    with torch.no_grad():
        moved = (body(x) - body(other)).norm(dim=1)
    assert float((moved / (x - other).flatten(1).norm(dim=1)).max()) <= bound


def test_no_attack_flips_a_certified_example() -> None:
    found = classifier([32, 16], 4, seed=5)
    x = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(6))
    y = predict(found, x).argmax(dim=1)
    eps = 0.05
    threat = ThreatModel(norm="L2", eps=eps)
    certificate = certify_lipschitz(found, x, y, threat)
    certified = torch.tensor(certificate.radius) > eps
    assert 0 < int(certified.sum()) < len(x)  # neither side is empty

    def loss(images: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(found(images), y, reduction="none")

    attacked = ascend(
        loss,
        x,
        threat,
        steps=50,
        step_size=eps / 4,
        generator=torch.Generator().manual_seed(0),
    )
    fooled = predict(found, attacked).argmax(dim=1) != y
    assert not bool((fooled & certified).any())
    assert certificate.certified.k == int(certified.sum())


def test_a_wrong_prediction_has_no_radius() -> None:
    found = classifier([16], 3)
    x = torch.rand(9, *SHAPE, generator=torch.Generator().manual_seed(1))
    y = (predict(found, x).argmax(dim=1) + 1) % 3
    certificate = certify_lipschitz(found, x, y, ThreatModel(norm="L2", eps=0.1))
    assert certificate.radius == [0.0] * 9
    assert certificate.certified.k == 0


def test_an_encoder_without_known_constant_is_refused() -> None:
    body = Encoder(EncoderSpec(arch="resnet_s8", shape=(1, 8, 8)))
    with pytest.raises(UserError, match=r"resnet_s8.*smoothing"):
        lipschitz_constant(body)


def test_maxmin_sorts_pairs() -> None:
    got = MaxMin()(torch.tensor([[3.0, 1.0, -2.0, 5.0]]))
    assert got.tolist() == [[1.0, 3.0, -2.0, 5.0]]


def test_the_published_encoder_is_1_lipschitz_to_the_letter() -> None:
    found = load_encoder_by_name("lipschitz-digits")
    norms = [
        np.linalg.svd(weight.double().numpy(), compute_uv=False)[0]
        for name, weight in found.backbone.state_dict().items()
        if name.endswith("weight")
    ]
    assert len(norms) == 3
    assert found.spec.std == (1.0,)
    assert 0.999 < math.prod(norms) <= 1
    assert lipschitz_constant(found) == pytest.approx(math.prod(norms), rel=1e-12)


@pytest.mark.parametrize(("task", "classes"), [("digits", 10), ("digits-parity", 2)])
def test_autoattack_fools_nothing_that_is_certified_on_either_task(
    task: str, classes: int
) -> None:
    # One encoder, one certificate; only the linear head differs.
    result = evaluate(
        "zoo:lipschitz-digits",
        dataset=task,
        norm="L2",
        eps=0.25,
        limit=40,
        probe=ProbeSettings(penalties=(0.1,)),
        measure=(EstimatedBound(), LipschitzMargins()),
    )
    assert result.dataset.classes == classes
    measured = Measurements.of(result)
    proof, bound = measured.lipschitz, measured.bound
    assert proof is not None
    assert bound is not None
    assert 20 <= proof.certified.k < result.robust.k + result.undecided
    for radius, verdict in zip(proof.radius, result.examples.verdict, strict=True):
        assert radius <= 0.25 or verdict is Verdict.ROBUST
    told = " ".join(footnotes(result))
    assert f"Certified: {proof.certified} within L2 0.25" in told
    # The bracket: what is proved <= what the margin test estimates.
    n = bound.estimated_robust.n  # the first ones
    held = sum(radius > result.threat.eps for radius in proof.radius[:n])
    assert 0 < held <= bound.estimated_robust.k
