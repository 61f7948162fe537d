"""The classifier as other libraries want it: ART's estimator, RobustBench's module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.classifier import Classifier, check_logits
from zoo.errors import UserError


class _ToFloat32(nn.Module):
    """Some attacks of ART hand over float64 images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.float())  # type: ignore[no-any-return]


def to_art(classifier: Classifier) -> Any:
    """Wraps as `art.estimators.classification.PyTorchClassifier`.

    Predictions are the module's logits and loss gradients those of the mean
    cross-entropy, with respect to pixels in [0, 1]; nothing is normalised twice.
    Images of double precision, which HopSkipJump asks about, are taken as float32.
    (ART's own AutoAttack also needs the package multiprocess: the extra `art`.)

    Raises:
        UserError: the module does not give one logit for each class.
    """
    from art.estimators.classification import PyTorchClassifier

    check_logits(classifier, torch.zeros(1, *classifier.shape))
    on_cpu = next(classifier.parameters()).device.type == "cpu"
    return PyTorchClassifier(
        model=_ToFloat32(classifier).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=classifier.shape,
        nb_classes=classifier.classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if on_cpu else "gpu",
    )


def to_robustbench(classifier: Classifier) -> nn.Module:
    """A plain torch module, images in [0, 1] to logits, that needs nothing of robrep.

    The forward pass is recorded as a graph of torch's own layers and functions
    (torch.fx), weights included: the module can be saved, and loaded where robrep is
    not installed. RobustBench's `clean_accuracy` and AutoAttack take it as it is.

    Raises:
        UserError: the forward pass branches on its input and cannot be recorded.
    """
    try:
        graph = torch.fx.symbolic_trace(classifier)
    except (torch.fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise UserError(
            "the classifier's forward pass cannot be recorded as a plain torch graph: "
            f"{error}"
        ) from None
    return graph.eval().requires_grad_(False)
