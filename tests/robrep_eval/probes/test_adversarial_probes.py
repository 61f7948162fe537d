"""ALF and AFF: what is trained, what is left alone, what it gains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

import zoo
from robrep_eval.attacks.pgd import ascend
from robrep_eval.probes.adversarial import AFF, ALF, fit_adversarial
from robrep_eval.probes.linear import ProbeSettings, fit_probe
from robrep_eval.probes.protocols import fit
from robrep_eval.probes.training import START_NOISE, HeadTraining, Scale
from zoo.ball import project, random_start
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder, fingerprint
from zoo.errors import UserError
from zoo.linear_end import without_end
from zoo.threat import ThreatModel

pytestmark = pytest.mark.slow


THREAT = ThreatModel(norm="Linf", eps=0.1)


@pytest.fixture(scope="module")
def encoder(plain_classifier: Classifier) -> Encoder:
    """Accurate features, broken under attack."""
    assert isinstance(plain_classifier.encoder, Encoder)
    return plain_classifier.encoder


def training(
    encoder: Encoder, data: Dataset, *, full: bool, **changes: object
) -> HeadTraining:
    """A run that has not begun, from a random head."""
    torch.manual_seed(0)
    settings = replace(AFF if full else ALF, **changes)  # type: ignore[arg-type]
    with torch.no_grad():
        scale = Scale.of(encoder(data.images(slice(None))))
    return HeadTraining(
        encoder,
        nn.Linear(encoder.dim, 10),
        scale,
        data,
        THREAT,
        full=full,
        settings=settings,
        rate=0.1,
        device="cpu",
    )


def attacked(classifier: Classifier, x: Tensor, y: Tensor) -> float:
    """Accuracy under 20 steps of PGD, the best iterate of each image."""
    found = ascend(
        lambda images: cross_entropy(classifier(images), y, reduction="none"),
        x,
        THREAT,
        steps=20,
        step_size=THREAT.eps / 5,
        generator=torch.Generator().manual_seed(1),
        keep_best=True,
    )
    return float((classifier(found).argmax(dim=1) == y).float().mean())


def test_scale_changes_neither_logits_nor_heads(encoder: Encoder) -> None:
    z = torch.randn(50, encoder.dim) * 7 + 3
    scale, head = Scale.of(z), nn.Linear(encoder.dim, 10)
    inside = scale.out_of(head)
    torch.testing.assert_close(inside(scale.apply(z)), head(z), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scale.into(inside).weight, head.weight)
    torch.testing.assert_close(scale.into(inside).bias, head.bias, atol=1e-4, rtol=1e-4)
    assert math.isclose(float(scale.apply(z).var(dim=0).mean()), 1, rel_tol=0.05)


def test_alf_gradient_is_that_of_the_cross_entropy_at_the_attack(
    encoder: Encoder, digits_train: Dataset
) -> None:
    data = digits_train.take(24)
    run = training(encoder, data, full=False, steps=3)
    x, y = data.images(slice(None)), data.labels
    # By hand: sign steps from the same start, then (softmax - one-hot)^T features / n.
    start = random_start(x, THREAT, torch.Generator().manual_seed(run.settings.seed))
    x_adv = start
    for _ in range(3):
        leaf = x_adv.clone().requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(run.logits(leaf), y), leaf)
        x_adv = project(x_adv + 0.25 * THREAT.eps * slope.sign(), x, THREAT)
    encoder.zero_grad(set_to_none=True)
    run.adversarial(x, y).backward()
    with torch.no_grad():
        z = run.scale.apply(encoder(x_adv))
        residual = run.head(z).softmax(dim=1) - one_hot(y, 10)
    assert run.head.weight.grad is not None
    assert run.head.bias.grad is not None
    torch.testing.assert_close(
        run.head.weight.grad, residual.T @ z / len(y), atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(
        run.head.bias.grad, residual.mean(dim=0), atol=1e-4, rtol=1e-3
    )
    assert all(p.grad is None for p in encoder.parameters())


def test_trades_is_cross_entropy_plus_six_divergences(
    encoder: Encoder, digits_train: Dataset
) -> None:
    data = digits_train.take(24)
    run = training(encoder, data, full=True, steps=0)
    x, y = data.images(slice(None)), data.labels
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x_adv = project(x + START_NOISE * noise, x, THREAT)
    whole = copy.deepcopy(run.encoder).train()
    with torch.no_grad():
        p, q = (
            run.head(run.scale.apply(whole(images))).double().softmax(dim=1)
            for images in (x, x_adv)
        )
        right = p[torch.arange(len(y)), y]
        divergence = (p * (p / q).log()).sum(dim=1)
    want = float((-right.log() + 6 * divergence).mean())
    assert run.trades(x, y).item() == pytest.approx(want, rel=1e-4)
    assert not run.encoder.training


def test_alf_hardens_the_head_and_leaves_the_encoder_alone(
    digits_train: Dataset, digits_test: Dataset
) -> None:
    encoder = zoo.load("simclr-digits")
    before = fingerprint(encoder)
    train, test = digits_train.take(500), digits_test.take(150)
    settings = replace(ALF, rates=(0.05, 0.1), epochs=6, min_steps=0, steps=4)
    hardened, record = fit_adversarial(
        encoder, train, THREAT, protocol="ALF", settings=settings
    )
    assert fingerprint(encoder) == before
    assert hardened.encoder is encoder
    x, y = test.images(slice(None)), test.labels
    plain, _ = fit_probe(encoder, train)
    assert attacked(hardened, x, y) > attacked(plain, x, y)
    assert record.protocol == "ALF"
    assert set(record.parameters["validation_pgd_accuracy"]) == {"0.05", "0.1"}
    assert record.parameters["rate"] in settings.rates
    assert "beta" not in record.parameters


def test_aff_trains_a_copy_and_gains_much(
    encoder: Encoder, digits_train: Dataset, digits_test: Dataset
) -> None:
    before = fingerprint(encoder)
    train, test = digits_train.take(800), digits_test.take(150)
    settings = replace(AFF, rates=(0.1,), epochs=5, min_steps=0, steps=3)
    tuned, record = fit_adversarial(
        encoder, train, THREAT, protocol="AFF", settings=settings
    )
    assert fingerprint(encoder) == before
    assert fingerprint(tuned.encoder) != before
    assert not any(module.training for module in tuned.modules())
    assert not any(p.requires_grad for p in tuned.parameters())
    x, y = test.images(slice(None)), test.labels
    plain, _ = fit_probe(encoder, train)
    assert attacked(tuned, x, y) > attacked(plain, x, y) + 0.2
    assert record.train_accuracy > 0.8
    assert record.parameters["beta"] == 6.0


def test_aff_trains_a_priced_encoder_and_its_head_as_one_layer(
    digits_train: Dataset,
) -> None:
    """Two linear layers in a row, of very different sizes, do not train together."""
    ended = zoo.load("tarrl-priced-digits")
    train = digits_train.take(400)
    settings = replace(AFF, rates=(0.01,), epochs=3, min_steps=0, steps=2)
    tuned, record = fit_adversarial(
        ended, train, THREAT, protocol="AFF", settings=settings
    )
    assert record.train_accuracy > 0.95
    assert isinstance(tuned.encoder, Encoder)
    shortened, rows = without_end(ended)
    assert rows is not None
    assert tuned.encoder.spec == shortened.spec
    assert tuned.head.in_features == rows.shape[1]


@pytest.mark.parametrize("protocol", ["ALF", "AFF"])
def test_equal_seeds_give_equal_classifiers(
    encoder: Encoder, digits_train: Dataset, protocol: Literal["ALF", "AFF"]
) -> None:
    settings = replace(
        ALF if protocol == "ALF" else AFF,
        rates=(0.1,),
        epochs=1,
        min_steps=0,
        steps=1,
        validation_steps=1,
    )
    made = [
        fit_adversarial(
            encoder,
            digits_train.take(128),
            THREAT,
            protocol=protocol,
            settings=settings,
        )
        for _ in range(2)
    ]
    assert fingerprint(made[0][0]) == fingerprint(made[1][0])
    assert made[0][1].validation_accuracy == made[1][1].validation_accuracy


def test_progress_only_rises_and_ends_at_one(
    encoder: Encoder, digits_train: Dataset
) -> None:
    seen: list[float] = []
    settings = replace(ALF, epochs=2, min_steps=0, steps=1, batch=32, trial_share=1.0)
    fit_adversarial(
        encoder,
        digits_train.take(100),
        THREAT,
        protocol="ALF",
        settings=settings,
        on_progress=seen.append,
    )
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    assert len(seen) > 20


@pytest.mark.parametrize("protocol", ["ALF", "AFF"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_an_interrupted_fit_goes_on_to_the_same_classifier(
    encoder: Encoder,
    digits_train: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: Literal["ALF", "AFF"],
    share: float,
) -> None:
    monkeypatch.setattr("robrep_eval.probes.adversarial.SAVE_SECONDS", 0.0)
    settings = replace(
        ALF if protocol == "ALF" else AFF,
        rates=(0.05, 0.1),
        epochs=3,
        min_steps=0,
        batch=64,
        trial_share=1.0,
        steps=1,
        validation_steps=1,
    )
    train = digits_train.take(200)
    path = tmp_path / "fit.safetensors"
    seen: list[float] = []

    def stop(done: float) -> None:
        if done > share:
            raise KeyboardInterrupt
        seen.append(done)

    def run(tell: Callable[[float], None], kept: Path | None) -> Classifier:
        return fit_adversarial(
            encoder,
            train,
            THREAT,
            protocol=protocol,
            settings=settings,
            checkpoint=kept,
            on_progress=tell,
        )[0]

    with pytest.raises(KeyboardInterrupt):
        run(stop, path)
    after: list[float] = []
    resumed = run(after.append, path)
    assert after[0] > share - 0.1, "begins where it was left"
    assert fingerprint(resumed) == fingerprint(run(lambda _: None, None))


def test_few_labels_are_recorded(encoder: Encoder, digits_train: Dataset) -> None:
    settings = ProbeSettings(labels="5%", penalties=(1e-2, 1.0))
    classifier, record = fit(
        encoder, digits_train, THREAT, settings=settings, labels_seed=7
    )
    assert (record.labels, record.train_n) == ("5%", 72)
    assert record.parameters["labels_seed"] == 7
    other, _ = fit(encoder, digits_train, THREAT, settings=settings, labels_seed=8)
    assert fingerprint(classifier) != fingerprint(other)


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'ALF'"):
        ProbeSettings(protocol="ALFF")  # type: ignore[arg-type]
