"""The losses of all methods, as functions of features or logits.

Contrastive losses take negatives from every process: rows are gathered, and each
process then computes the same global value. Means over examples stay local, since
DDP averages gradients.

Networks may run in bf16, losses never do: its 8 bits would round a loss to a few
per mille, and the differences that an attack climbs with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Literal, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.distributed import gather

Distance = Literal["l2", "squared", "cosine"]
P = ParamSpec("P")


def in_fp32(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Runs a loss outside autocast, which would cast its matrix products to bf16."""

    @wraps(loss)
    def outside(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.autocast(device, enabled=False):
            return loss(*args, **kwargs)

    return outside


def widened(z: Tensor) -> Tensor:
    """Half precision as float32; wider types stay."""
    return z.float() if z.dtype in (torch.bfloat16, torch.float16) else z


@in_fp32
def nt_xent(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """Pulls the two views of each image together, against all other views.

    Args:
        a: Projections of the first views (N, d), rows of any length.
        b: Those of the second views, row i paired with row i of `a`.
        temperature: Positive divisor of the cosine similarities.

    Returns:
        Scalar mean over 2 N anchors; log(2 N - 1) if all rows are equal.

    Source: Chen et al. 2020, arXiv 2002.05709, equation (1).
    """
    a, b = gather(widened(a)), gather(widened(b))
    n = len(a)
    views = F.normalize(torch.cat([a, b]), dim=1)  # (2N, d)
    similarity = views @ views.T / temperature  # (2N, 2N)
    own = torch.eye(2 * n, dtype=torch.bool, device=a.device)
    similarity = similarity.masked_fill(own, -torch.inf)
    partner = torch.arange(2 * n, device=a.device).roll(n)
    return F.cross_entropy(similarity, partner)


@in_fp32
def multi_positive(views: list[Tensor], *, temperature: float) -> Tensor:
    """NT-Xent with several views per image: the mean over positives of log-ratios.

    Args:
        views: V tensors (N, d); rows of the same number show the same image.
        temperature: Positive divisor of the cosine similarities.

    Returns:
        Scalar mean over V N anchors and their V - 1 positives. With V = 2 this is
        `nt_xent`.

    Source: Khosla et al. 2020, arXiv 2004.11362, equation (2), images as classes.
    """
    rows = F.normalize(torch.cat([gather(widened(v)) for v in views]), dim=1)  # (VN, d)
    count, total = len(views), len(rows)
    image = torch.arange(total // count, device=rows.device).repeat(count)
    own = torch.eye(total, dtype=torch.bool, device=rows.device)
    positive = (image[:, None] == image) & ~own
    similarity = (rows @ rows.T / temperature).masked_fill(own, -torch.inf)
    ratio = similarity - similarity.logsumexp(dim=1, keepdim=True)
    return -ratio[positive].sum() / (total * (count - 1))


@dataclass(frozen=True)
class Spread:
    """Mean and deviation of features per coordinate, (d,) each.

    Distances between standardised features do not change when an encoder's features
    are scaled or shifted, so shrinking them gains nothing.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, z: Tensor) -> Spread:
        """Of clean features (n, d), over all processes, with gradients.

        Coordinates whose variance is negligible beside the largest count as constant.
        """
        whole = gather(widened(z))
        variance = whole.var(dim=0, unbiased=False)
        floor = 1e-4 * variance.amax().clamp(min=1e-30)
        return cls(whole.mean(dim=0), (variance + floor).sqrt())

    @classmethod
    def none(cls) -> Spread:
        """Leaves features as they are."""
        return cls(torch.zeros(()), torch.ones(()))

    def standardise(self, z: Tensor) -> Tensor:
        """(z - mean) / deviation."""
        z = widened(z)
        return (z - self.mean.to(z)) / self.deviation.to(z)

    def detach(self) -> Spread:
        """The same numbers without gradients."""
        return Spread(self.mean.detach(), self.deviation.detach())


def distances(z: Tensor, reference: Tensor, distance: Distance) -> Tensor:
    """How far each row of z lies from its reference, (N,).

    "l2" is divided by sqrt(d) and "squared" by d, so that the same weight serves
    encoders of any width; "cosine" is 1 - cosine similarity.
    """
    z, reference = widened(z), widened(reference)
    if distance == "cosine":
        return 1 - F.cosine_similarity(z, reference, dim=1)
    squared = (z - reference).square().mean(dim=1)
    # The square root has no gradient at 0; the shift is far below any real distance.
    return squared if distance == "squared" else (squared + 1e-12).sqrt()


def kl(clean: Tensor, other: Tensor) -> Tensor:
    """KL(p_clean || p_other) of logits, per row (N,); zero if they are equal."""
    p, q = (F.log_softmax(widened(v), dim=1) for v in (clean, other))
    return (p.exp() * (p - q)).sum(dim=1)


def cosine_loss(z: Tensor, reference: Tensor) -> Tensor:
    """Minus the cosine similarity of each row with its reference, (N,)."""
    return -F.cosine_similarity(widened(z), widened(reference), dim=1)
