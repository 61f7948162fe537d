"""The losses of all methods, as functions of features or logits.

Contrastive losses take negatives from every process: rows are gathered, and each
process then computes the same global value. Means over examples stay local, since
DDP averages gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.distributed import gather
from pretrain.precision import in_fp32, widened

Distance = Literal["l2", "squared", "cosine"]


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
    rows = torch.cat([_rows(a, temperature), _rows(b, temperature)])  # (2N, d)
    partner = torch.arange(len(rows), device=rows.device).roll(len(rows) // 2)
    return F.cross_entropy(_similarities(rows), partner)


@in_fp32
def distance_contrast(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE on squared distances: no normalisation, so scale cannot be bought.

    Args:
        a: Features of the first views (N, d).
        b: Those of the second views, row i paired with row i of `a`.
        temperature: Positive divisor of the squared distances.

    Returns:
        Scalar mean over 2 N anchors; log(2 N - 1) if all rows are equal.
    """
    z = torch.cat([gather(widened(a)), gather(widened(b))])  # (2N, d)
    square = z.square().sum(dim=1)
    distance = square.unsqueeze(1) + square.unsqueeze(0) - 2 * z @ z.T
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (-distance / temperature).masked_fill(own, -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return F.cross_entropy(logits, partner)


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
    rows = [_rows(v, temperature) for v in views]
    others = _similarities(torch.cat(rows)).logsumexp(dim=1)
    return others.mean() - _mean_positive(rows)


def against(fixed: list[Tensor], *, temperature: float) -> Callable[[Tensor], Tensor]:
    """`multi_positive` of views of which all but one stay the same, as in an attack.

    What the fixed views contribute among themselves is computed once.

    Args:
        fixed: V - 1 tensors (N, d), without gradients.
        temperature: Positive divisor of the cosine similarities.

    Returns:
        A function of the moving view (N, d) that gives the loss.
    """
    still = [_rows(v, temperature) for v in fixed]
    rows = torch.cat(still)  # ((V - 1) N, d)
    among = in_fp32(_similarities)(rows).logsumexp(dim=1)

    @in_fp32
    def loss(moving: Tensor) -> Tensor:
        u = _rows(moving, temperature)
        across = u @ rows.T  # (N, (V - 1) N)
        anchors = torch.cat([across, _similarities(u)], dim=1).logsumexp(dim=1)
        others = torch.logaddexp(among, across.logsumexp(dim=0))
        return torch.cat([anchors, others]).mean() - _mean_positive([*still, u])

    return loss


def _rows(view: Tensor, temperature: float) -> Tensor:
    """Rows of all processes whose products are similarities over temperature."""
    return F.normalize(gather(widened(view)), dim=1) / math.sqrt(temperature)


def _similarities(rows: Tensor) -> Tensor:
    """All pairs of rows (n, n); a row is not compared with itself."""
    similarities = rows @ rows.T
    with torch.no_grad():  # the softmax gives -inf no gradient as it is
        similarities.fill_diagonal_(-torch.inf)
    return similarities


def _mean_positive(views: list[Tensor]) -> Tensor:
    """Mean similarity, over temperature, of two views of the same image.

    The squared length of the sum of an image's V rows is the sum of all V^2 products;
    those of rows with themselves are taken off.
    """
    stacked = torch.stack(views)  # (V, N, d)
    count, n, _ = stacked.shape
    pairs = stacked.sum(dim=0).square().sum() - stacked.square().sum()
    return pairs / (n * count * (count - 1))


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
        """Of clean features (n, d), over all processes, with gradients."""
        return cls.within(gather(widened(z)))

    @classmethod
    def within(cls, whole: Tensor) -> Spread:
        """Of features (n, d) that every process has.

        Coordinates whose variance is negligible beside the largest count as constant.
        """
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


def squared_lengths(z: Tensor) -> Tensor:
    """Squared L2 length of each row (N, d), (N,)."""
    return widened(z).square().sum(dim=1)


def kl(clean: Tensor, other: Tensor) -> Tensor:
    """KL(p_clean || p_other) of logits, per row (N,); zero if they are equal."""
    p, q = (F.log_softmax(widened(v), dim=1) for v in (clean, other))
    return (p.exp() * (p - q)).sum(dim=1)


def cosine_loss(z: Tensor, reference: Tensor) -> Tensor:
    """Minus the cosine similarity of each row with its reference, (N,)."""
    return -F.cosine_similarity(widened(z), widened(reference), dim=1)
