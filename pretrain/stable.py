"""Stable directions: the linear map of features that an adversary moves least.

Sigma: covariance of clean features. D: second moment of g(x + d) - g(x), where d
maximises u . W g(x + d), u normal, W whitening: a random linear probe for each image.
The directions v of smallest v'Dv / v'Sigma v move least in units of their own spread;
the encoder ends in the first k of them, scaled to unit variance. No labels, no
training.

With a price, the features are mixtures of those directions in which the L2 penalty of
a probe is one on how far an adversary moves its logits: the constant of the head in
the bound, kept small by the probe's own regularisation.

Source: ours. It is the regulariser of Nguyen et al. 2022 (arXiv 2203.07596), minimised
over linear maps of a fixed encoder; as an eigenvalue problem it is Fisher's
discriminant with displacement in place of the scatter within classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.methods.base import step_size
from pretrain.randomness import generator
from pretrain.recipe import AttackSettings, Recipe, StableSettings
from robrep_eval.attacks.pgd import ascend
from robrep_eval.probes.linear import features
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.layout import Layout
from zoo.linear_end import with_end
from zoo.threat import ThreatModel

BATCH = 256
NEGLIGIBLE = 1e-6
"""Variance, beside the largest, of directions that count as constant."""
LEAST = 1e-4
"""Displacement, beside the largest, below which directions count as equally stable."""
UNIT = 1e-5
"""L2 penalty of a probe that pays the price: the smallest one that version 1 of SLF
tried. A probe with a smaller penalty pays less, in proportion."""


def passes(settings: StableSettings | None, data: Dataset) -> float:
    """Forward equivalents per training image that `ended` costs once."""
    if settings is None:
        return 0.0
    images = min(settings.images, len(data))
    return images * (2 * settings.steps + 2) / len(data)


def ended(
    encoder: Encoder, data: Dataset, recipe: Recipe, device: torch.device
) -> Encoder:
    """The encoder with a last linear layer, as the recipe asks for.

    Args:
        encoder: In eval mode, on `device`.
        data: Training images.
        recipe: With `stable` and a threat model; its seed decides all draws.
        device: Where to work.

    Returns:
        The encoder ended in `stable.keep` features, or as many as vary.

    Raises:
        UserError: a price below what the directions cost by themselves.
    """
    settings, threat = recipe.stable, recipe.threat
    assert settings is not None, "the caller asks"
    assert threat is not None, "checked with the recipe"
    draws = generator(recipe.seed, "stable")
    rows, moved = directions(
        encoder,
        data.take(settings.images),
        threat,
        steps=settings.steps,
        draws=draws,
        device=device,
    )
    rows = rows[: settings.keep]
    if settings.price is not None:
        rows = mixture(moved[: settings.keep], settings.price, draws) @ rows
    return with_end(encoder, rows).to(device)


def directions(
    encoder: nn.Module,
    data: Dataset,
    threat: ThreatModel,
    *,
    steps: int,
    draws: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Linear maps of features, most stable first, and how far each moves.

    Args:
        encoder: In eval mode, on `device`.
        data: Images that spread and displacement are measured on.
        threat: Of the attack.
        steps: Of the attack; each costs a forward and a backward pass.
        draws: CPU generator of random probes and starts.
        device: Where the attack runs.

    Returns:
        (r, d), float32, CPU: r <= d rows, under which clean features are uncorrelated
        with unit variance; (r,): the second moments of their displacement, ascending.
    """
    z = features(encoder, data, Layout(device=str(device), batch_size=BATCH))
    whitening = _whitening(z)
    moment = torch.zeros(len(whitening), len(whitening), dtype=torch.float64)
    for start in range(0, len(data), BATCH):
        x = data.images(slice(start, start + BATCH)).to(device)
        moved = _moved(encoder, x, whitening, threat, steps, draws)
        shift = (moved - z[start : start + BATCH]).double() @ whitening.T
        moment += shift.T @ shift / len(data)
    moved, vectors = torch.linalg.eigh(moment)
    return (vectors.T @ whitening).float(), moved.float()


def mixture(displacement: Tensor, price: float, draws: torch.Generator) -> Tensor:
    """Mixes stable directions so that an L2 penalty is one on displacement.

    z = Q diag(w) s / sqrt(mean w^2), Q orthogonal with a constant first column: every
    feature is the most stable direction and, for a small part, all others, i > 1, in
    units of their displacement: w_i^2 = 1 / lambda_i. w_1 makes mean w^2 the price in
    units of `UNIT`. Features then have variances near 1; that penalty on a probe v of s
    comes to price * sum_{i>1} lambda_i v_i^2.

    Args:
        displacement: lambda (k,), ascending, of directions s with unit variance.
        price: Positive.
        draws: CPU generator of Q.

    Returns:
        (k, k), float32.

    Raises:
        UserError: a price below what the directions cost by themselves.
    """
    moved, k = displacement.double(), len(displacement)
    squares = 1 / moved.clamp(min=LEAST * float(moved[-1]))
    whole, others = k * price / UNIT, float(squares[1:].sum())
    if whole <= others:
        raise UserError(
            f"stable.price is {price:g}, but the displacement of {k} directions costs "
            f"{UNIT * others / k:.2g} in any case; set it higher"
        )
    squares[0] = whole - others
    columns = torch.randn(k, k, generator=draws, dtype=torch.float64)
    columns[:, 0] = 1
    q = torch.linalg.qr(columns).Q
    mixed: Tensor = q * (squares / squares.mean()).sqrt()
    return mixed.float()


def _whitening(z: Tensor) -> Tensor:
    """(r, d), float64: uncorrelated directions of unit variance."""
    covariance = torch.cov(z.double().T)
    values: Tensor
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > NEGLIGIBLE * values.amax()
    rows: Tensor = (vectors[:, kept] / values[kept].sqrt()).T
    return rows


def _moved(
    encoder: nn.Module,
    x: Tensor,
    whitening: Tensor,
    threat: ThreatModel,
    steps: int,
    draws: torch.Generator,
) -> Tensor:
    """Features (n, d), CPU, of images attacked by one random probe each."""
    probes = torch.randn(len(x), len(whitening), generator=draws)
    rows = (probes.double() @ whitening).float().to(x.device)  # (n, d)
    found = ascend(
        lambda images: (encoder(images) * rows).sum(dim=1),
        x,
        threat,
        steps=steps,
        step_size=step_size(AttackSettings(steps=steps), threat),
        generator=draws,
    )
    with torch.no_grad():
        moved: Tensor = encoder(found).float().cpu()
    return moved
