"""A classifier: an encoder and a linear head, one module in eval mode.

A leaderboard figure belongs to a classifier, so its head is published with it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.layout import ON_CPU, Layout
from zoo.threads import fitting_threads, network_work


class Classifier(nn.Module):
    """Images (N, C, H, W), float32 in [0, 1], to logits (N, classes).

    Frozen and in eval mode from the start: evaluation differentiates with respect to
    images only, and batch statistics would let examples influence each other.

    Args:
        encoder: g. A ready-made classifier of someone else's is passed whole, with
            `nn.Identity()` for the head: its logits are then its features.
        head: W z + b.
        classes: Number of classes.
        shape: (C, H, W) of the images.

    Raises:
        UserError: fewer than two classes, or a linear head with another number of
            outputs. What another head gives is known when images have passed it
            (`check_logits`).
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        *,
        classes: int,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if classes < 2:
            raise UserError(f"a classifier needs at least 2 classes, not {classes}")
        if isinstance(head, nn.Linear) and head.out_features != classes:
            raise UserError(
                f"the head gives {head.out_features} logits, but there are {classes} "
                "classes"
            )
        self.encoder = encoder
        self.head = head
        self.classes = classes
        self.shape = shape
        self.eval()
        self.requires_grad_(False)

    @property
    def linear(self) -> nn.Linear | None:
        """The linear head, or None for a ready-made classifier without a probe."""
        return self.head if isinstance(self.head, nn.Linear) else None

    def features(self, x: Tensor) -> Tensor:
        """z = g(x), (N, d)."""
        return self.encoder(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))  # type: ignore[no-any-return]


def predict(classifier: nn.Module, x: Tensor, layout: Layout = ON_CPU) -> Tensor:
    """Logits of all of `x` on the CPU, computed batch by batch without gradients."""
    work = network_work(classifier, x.shape[1:])
    # Not inference mode: in it, some modules cannot take steps of their own.
    with torch.no_grad(), fitting_threads(work):
        parts = [
            classifier(part.to(layout.device)).float().cpu()
            for part in x.split(layout.batch_size)
        ]
    return torch.cat(parts)


def check_logits(classifier: Classifier, x: Tensor) -> None:
    """Passes images (N, C, H, W) to see that there is one logit for each class.

    Raises:
        UserError: the pass fails, or gives another shape than (N, classes).
    """
    weight = next(classifier.parameters(), x)
    try:
        with torch.no_grad():
            logits = classifier(x.to(weight.device))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"the classifier fails on images of shape {tuple(x.shape)}: {error}"
        ) from None
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (len(x), classifier.classes):
        raise UserError(
            f"the classifier is said to have {classifier.classes} classes, but for "
            f"{len(x)} image(s) it gives {found}, not "
            f"{(len(x), classifier.classes)}; pass a module that returns one logit for "
            "each class"
        )


def double(classifier: nn.Module) -> nn.Module:
    """A float64 copy, for decisions that float32 leaves open."""
    return copy.deepcopy(classifier).double().eval()
