"""By what penalties are chosen: scikit-learn, a closed form, and no test image."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from robrep_eval import evaluate
from robrep_eval.probes.choice import Judge, split
from robrep_eval.probes.linear import (
    PENALTIES,
    ProbeSettings,
    fit_probe,
    validation_scores,
)
from robrep_eval.probes.logistic import fit_linear
from zoo.datasets.base import Dataset, from_tensors
from zoo.encoder import Encoder, EncoderSpec, fingerprint
from zoo.errors import UserError
from zoo.layout import ON_CPU
from zoo.task_version import PROTOCOLS, end_of_grid, task_version
from zoo.threat import ThreatModel

EPS = 0.02
THREAT = ThreatModel(norm="Linf", eps=EPS)


def noisy(count: int, seed: int) -> Dataset:
    """Two classes of grey images that overlap; no pixel near 0 or 1."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    x = 0.5 + 0.05 * torch.randn(count, 1, 8, 8, generator=draws).clamp(-3, 3)
    x[:, 0, :2] += 0.02 * (2 * y.float() - 1)[:, None, None]
    return from_tensors(x.clamp(0.3, 0.7), y, name="noisy", classes=["a", "b"])


def plain() -> Encoder:
    """A network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = EncoderSpec(
            arch="lipschitz_dense", options={"widths": [32, 32]}, shape=(1, 8, 8)
        )
        return Encoder(spec).eval().requires_grad_(False)


def independent(z: Tensor, y: Tensor) -> dict[float, int]:
    """Held-out images that scikit-learn gets right at each penalty."""
    fitting, held = split(y, 0.2, 0)
    points = z[fitting].double()
    center, scale = points.mean(dim=0), points.std(dim=0, correction=0)
    at = ((z.double() - center) / scale).numpy()
    found = {}
    for penalty in PENALTIES:
        model = LogisticRegression(
            C=1 / (penalty * len(fitting)), solver="newton-cholesky", max_iter=500
        )
        model.fit(at[fitting.numpy()], y[fitting].numpy())
        found[penalty] = int((model.predict(at[held.numpy()]) == y[held].numpy()).sum())
    return found


def test_the_penalty_is_scikit_learns_choice(digits_train: Dataset) -> None:
    z = digits_train.images(slice(700))[:, 0, 2:6, 2:6].flatten(1)
    y = digits_train.labels[:700]
    want, count = independent(z, y), len(split(y, 0.2, 0)[1])
    scores = validation_scores(z, y, 10, ProbeSettings())
    assert set(scores) <= set(PENALTIES)
    for penalty, score in scores.items():
        # Trials stop at a gradient of 1e-5, so a few images at the boundary may turn.
        assert abs(score * count - want[penalty]) <= 0.03 * count, penalty
    best = max(scores, key=lambda penalty: (scores[penalty], penalty))
    assert want[best] >= max(want.values()) - 1
    assert min(PENALTIES) < best < max(PENALTIES)


def test_weak_penalties_are_tried_until_two_are_no_better(
    digits_train: Dataset,
) -> None:
    z = digits_train.images(slice(300))[:, 0, 2:6, 2:6].flatten(1)
    scores = validation_scores(z, digits_train.labels[:300], 10, ProbeSettings())
    tried = sorted(scores, reverse=True)
    assert tried == sorted(PENALTIES, reverse=True)[: len(tried)]
    first = max(scores.values())
    best = next(at for at, penalty in enumerate(tried) if scores[penalty] == first)
    assert len(tried) == min(len(PENALTIES), max(7, best + 3))


def test_the_judge_counts_what_a_closed_form_says() -> None:
    """A linear classifier of two classes falls where |w|_1 eps exceeds its margin."""
    train = noisy(300, 1)
    x, y = train.images(slice(None)).flatten(1), train.labels
    head = fit_linear(x, y, classes=2, l2=1e-2)
    judge = Judge(nn.Flatten(), train, THREAT, ON_CPU)
    rows = judge.chosen(torch.arange(300))
    assert rows.tolist() == list(range(300))
    w = (head.weight[1] - head.weight[0]).double()
    margin = (2 * y - 1) * (x.double() @ w + (head.bias[1] - head.bias[0]))
    left = margin - EPS * w.abs().sum()
    assert left.abs().min() > 1e-5, "no image is so near that rounding decides"
    assert judge.right(head, rows) == int((left > 0).sum())
    assert 0 < int((left > 0).sum()) < int((margin > 0).sum())


def test_slf_r_prefers_what_stands_under_attack() -> None:
    """Its head is that of SLF with the penalty that it chose."""
    train, encoder = noisy(400, 2), plain()
    head, record = fit_probe(
        encoder, train, threat=THREAT, settings=ProbeSettings(protocol="SLF-R")
    )
    _, clean = fit_probe(encoder, train)
    assert (record.protocol, clean.protocol) == ("SLF-R", "SLF")
    assert task_version("digits", record).probe == PROTOCOLS["SLF-R"]
    assert task_version("digits", clean).probe == PROTOCOLS["SLF"]
    chosen = record.parameters["l2"]
    scores = record.parameters["validation_accuracy"]
    assert scores[f"{chosen:g}"] == max(scores.values()) == record.validation_accuracy
    fixed, _ = fit_probe(encoder, train, settings=ProbeSettings(penalties=(chosen,)))
    assert fingerprint(head) == fingerprint(fixed)
    both = scores.keys() & clean.parameters["validation_accuracy"].keys()
    assert all(scores[p] <= clean.parameters["validation_accuracy"][p] for p in both)
    with pytest.raises(UserError, match="say in which ball"):
        fit_probe(encoder, train, settings=ProbeSettings(protocol="SLF-R"))


def test_slf_r_never_sees_test_images() -> None:
    train, encoder = noisy(200, 3), plain()
    found = [
        evaluate(
            encoder,
            test,
            train=train,
            eps=EPS,
            probe="slf-r",
            attacks="fgsm",
            measure=(),
        )
        for test in (noisy(20, 4), noisy(30, 5))
    ]
    one, two = (result.probe for result in found)
    assert one is not None
    assert two is not None
    assert one.parameters == two.parameters
    assert found[0].model.weights_sha256 == found[1].model.weights_sha256
    assert one.parameters["choice"]["threat"] == str(THREAT)


@pytest.mark.parametrize("penalties", [(0.1, 1.0), (1e-3, 0.1, 10.0)])
def test_an_end_of_the_grid_is_told(penalties: tuple[float, ...]) -> None:
    train = noisy(200, 6)
    result = evaluate(
        plain(),
        noisy(20, 7),
        train=train,
        eps=EPS,
        probe=ProbeSettings(penalties=penalties),
        attacks="fgsm",
        measure=(),
    )
    assert result.probe is not None
    chosen = result.probe.parameters["l2"]
    at_end = chosen in (penalties[0], penalties[-1])
    assert any("may lie beyond" in note for note in result.notes) == at_end
    assert bool(end_of_grid(result.probe)) == at_end
    assert at_end or len(penalties) > 2
    fixed = result.probe.model_copy(
        update={"parameters": {"l2": 0.1, "validation_accuracy": {"0.1": 0.5}}}
    )
    assert end_of_grid(fixed) == "", "who names a penalty is told nothing"


def test_spaced_rows_are_held_out_rows() -> None:
    judge = Judge(nn.Flatten(), noisy(40, 8), THREAT, ON_CPU, images=5)
    held = torch.from_numpy(np.arange(3, 40, 2))
    assert judge.chosen(held).tolist() == [3, 11, 21, 31, 39]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"penalties": ()}, "one or more, each named once, not ()"),
        ({"penalties": (0.1, 1.0, 0.1)}, "each named once"),
        ({"validation_share": 0.0}, "between 0 and 1, not 0"),
        ({"validation_share": 1.0}, "between 0 and 1, not 1"),
        ({"validation_share": float("nan")}, "between 0 and 1, not nan"),
    ],
)
def test_settings_that_choose_nothing_are_refused(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        ProbeSettings(**settings)
