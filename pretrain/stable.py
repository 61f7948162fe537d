"""Stable directions: the linear map of features that an adversary moves least.

Sigma: covariance of clean features. D: second moment of g(x + d) - g(x), where d
maximises u . W g(x + d), u normal, W whitening: a random linear probe for each image.
The directions v of smallest v'Dv / v'Sigma v move least in units of their own spread;
the encoder ends in the first k of them, scaled to unit variance. No labels, no
training.

Source: ours. It is the regulariser of Nguyen et al. 2022 (arXiv 2203.07596), minimised
over linear maps of a fixed encoder; as an eigenvalue problem it is Fisher's
discriminant with displacement in place of the scatter within classes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pretrain.methods.base import step_size
from pretrain.randomness import generator
from pretrain.recipe import AttackSettings, Recipe, StableSettings
from robrep_eval.attacks.pgd import ascend
from robrep_eval.probes import features
from zoo.architectures import LINEAR_END
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.nets.linear_end import LinearEnd
from zoo.threat import ThreatModel

BATCH = 256
NEGLIGIBLE = 1e-6
"""Variance, beside the largest, of directions that count as constant."""


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

    Raises:
        UserError: fewer directions than are to be kept.
    """
    settings, threat = recipe.stable, recipe.threat
    assert settings is not None, "the caller asks"
    assert threat is not None, "checked with the recipe"
    rows = directions(
        encoder,
        data.take(settings.images),
        threat,
        steps=settings.steps,
        draws=generator(recipe.seed, "stable"),
        device=device,
    )
    if len(rows) < settings.keep:
        raise UserError(
            f"stable.keep is {settings.keep}, but the features vary in {len(rows)} "
            "directions only; keep fewer, or measure on more images (stable.images)"
        )
    spec = encoder.spec
    options = {**spec.options, LINEAR_END: settings.keep}
    shortened = Encoder(spec.model_copy(update={"options": options})).to(device)
    end = shortened.backbone
    assert isinstance(end, LinearEnd)
    end.backbone = copy.deepcopy(encoder.backbone)
    with torch.no_grad():
        end.end.weight.copy_(rows[: settings.keep])
    return shortened.eval().requires_grad_(False)


def directions(
    encoder: nn.Module,
    data: Dataset,
    threat: ThreatModel,
    *,
    steps: int,
    draws: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Linear maps of features, most stable first.

    Args:
        encoder: In eval mode, on `device`.
        data: Images that spread and displacement are measured on.
        threat: Of the attack.
        steps: Of the attack; each costs a forward and a backward pass.
        draws: CPU generator of random probes and starts.
        device: Where the attack runs.

    Returns:
        (r, d), float32, CPU: r <= d rows, under which clean features are uncorrelated
        with unit variance.
    """
    z = features(encoder, data, batch_size=BATCH, device=str(device))
    whitening = _whitening(z)
    moment = torch.zeros(len(whitening), len(whitening), dtype=torch.float64)
    for start in range(0, len(data), BATCH):
        x = data.images(slice(start, start + BATCH)).to(device)
        moved = _moved(encoder, x, whitening, threat, steps, draws)
        shift = (moved - z[start : start + BATCH]).double() @ whitening.T
        moment += shift.T @ shift / len(data)
    vectors: Tensor = torch.linalg.eigh(moment).eigenvectors  # eigenvalues ascend
    return (vectors.T @ whitening).float()


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
