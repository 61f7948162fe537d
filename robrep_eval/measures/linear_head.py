"""A linear head on features: its boundaries, and how far a feature lies from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.classifier import Classifier
from zoo.errors import UserError


def linear_head(classifier: Classifier) -> nn.Linear:
    """The head; raises `UserError` for a classifier without a linear one."""
    if classifier.linear is None:
        raise UserError(
            "the bound and the margin certificate need a linear head on features, but "
            "this classifier came ready-made; evaluate the encoder with a probe"
        )
    return classifier.linear


def features_and_logits(
    classifier: Classifier, x: Tensor, batch_size: int, device: str
) -> tuple[Tensor, Tensor]:
    """z (N, d) and W z + b (N, K), both float64 on the CPU.

    The head is applied in float64, so that the inequalities hold without slack for
    the features the encoder gives.
    """
    head = linear_head(classifier)
    with torch.inference_mode():
        parts = [
            classifier.features(part.to(device)).double().cpu()
            for part in x.split(batch_size)
        ]
    z = torch.cat(parts)
    logits = z @ head.weight.double().cpu().T
    if head.bias is not None:
        logits = logits + head.bias.double().cpu()
    return z, logits


def head_distances(weight: Tensor) -> Tensor:
    """||w_j - w_k||_2 of all rows of (K, d); (K, K), float64, zero diagonal."""
    rows = weight.double()
    return (rows.unsqueeze(1) - rows.unsqueeze(0)).square().sum(dim=2).sqrt()


def head_constants(weight: Tensor, y: Tensor) -> Tensor:
    """C_y of each label: the Lipschitz constant of the cross-entropy in z; (N,)."""
    return head_distances(weight).amax(dim=1)[y]


def margins(logits: Tensor, weight: Tensor) -> Tensor:
    """Distance from each feature to its nearest decision boundary, float64 (N,).

    The prediction cannot change while the feature moves less than this. Classes with
    equal rows have no boundary between them: one that ties or leads gives 0, one that
    trails never overtakes (infinity).
    """
    s = logits.double()
    top = s.argmax(dim=1, keepdim=True)
    gaps = s.gather(1, top) - s  # (N, K), 0 at the prediction
    lengths = head_distances(weight)[top.squeeze(1)]
    parallel = torch.where(gaps > 0, torch.inf, 0.0).double()
    reach = torch.where(lengths > 0, gaps / lengths.clamp(min=1e-300), parallel)
    return reach.scatter(1, top, torch.inf).amin(dim=1)
