"""Checks of a classifier before anything is attacked: may its figures be trusted?

Sources: the automatic checks of AutoAttack (arXiv 2003.01690, `flags_doc.md`); Carlini
et al. 2019, arXiv 1902.06705; Croce et al. 2022, arXiv 2202.13711.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robrep_eval.attacks.base import needs_gradients
from zoo.errors import UserError
from zoo.soundness import (
    REFUSED,
    in_other_company,
    input_gradient,
    probabilities,
    repeated,
)

if TYPE_CHECKING:
    from robrep_eval.attacks.battery import Battery
    from zoo.datasets.base import Dataset

SAMPLE = 32
"""Examples looked at."""


def check_classifier(
    classifier: nn.Module, data: Dataset, battery: Battery, device: str
) -> list[str]:
    """Refuses what cannot be attacked soundly; returns warnings for the result.

    Raises:
        UserError: training mode; images overwritten; logits that change from pass to
            pass, unless every attack averages over passes; rows that influence each
            other; no gradient.
    """
    _check_mode(classifier)
    x = data.images(slice(SAMPLE)).to(device)
    logits = _check_input(classifier, x)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise UserError(
            f"the classifier must give logits (n, classes) for at least 2 classes, "
            f"not a tensor of shape {tuple(logits.shape)}"
        )
    if not bool(logits.isfinite().all()):
        return ["some clean logits are NaN or infinite: those examples are undecided"]
    if not _stochastic_allowed(battery):
        _check_repeatable(classifier, x)
        _check_rows(classifier, x)
    if any(needs_gradients(attack) for attack in battery.attacks):
        _check_gradient(classifier, x)
    return _looks_like_probabilities(logits)


def _check_input(classifier: nn.Module, x: Tensor) -> Tensor:
    """Logits; the images must be left as they are."""
    given = x.clone()
    logits = _logits(classifier, given)
    if not torch.equal(given, x):
        raise UserError(
            "the classifier writes into the images that it is given; let it begin with "
            "x = x.clone()"
        )
    return logits


def _check_mode(classifier: nn.Module) -> None:
    training = [
        name or "itself" for name, m in classifier.named_modules() if m.training
    ]
    if training:
        raise UserError(
            f"the classifier is in training mode ({training[0]}): batch statistics and "
            "dropout would make its figures meaningless; call .eval()"
        )


def _stochastic_allowed(battery: Battery) -> bool:
    """True if every attack is made for stochastic classifiers."""
    return bool(battery.attacks) and all(
        attack.parameters.get("averaged", 1) > 1
        or attack.parameters.get("version") == "rand"
        for attack in battery.attacks
    )


def _check_repeatable(classifier: nn.Module, x: Tensor) -> None:
    change = repeated(partial(_logits, classifier), x, passes=3)
    if bool((change > REFUSED).any()):
        raise UserError(
            "the classifier is stochastic: the same images gave logits that differ by "
            f"{float(change.max()):.1%} of their spread; attack it with --attacks "
            "rand, which averages gradients"
        )


def _check_rows(classifier: nn.Module, x: Tensor) -> None:
    """Each row alone, and all in reverse order, must give what the batch gave."""
    order = torch.arange(len(x)).flip(0)
    change = in_other_company(partial(_logits, classifier), x, order, alone=4)
    if bool((change > REFUSED).any()):
        raise UserError(
            "rows of a batch influence each other: logits differ by "
            f"{float(change.max()):.1%} of their spread with the company they are "
            "computed in (batch statistics?); the classifier must treat each image by "
            "itself"
        )


def _check_gradient(classifier: nn.Module, x: Tensor) -> None:
    try:
        gradient = input_gradient(classifier, x[:2], lambda logits: logits)
    except RuntimeError as error:
        raise UserError(
            "the gradient of the logits by the images cannot be taken: "
            f"{str(error).splitlines()[0]}; attack it with --attacks square"
        ) from error
    if gradient is None:
        raise UserError(
            "no gradient reaches the images (a detached or non-differentiable "
            "step?); gradient attacks would report robustness that is not there; "
            "attack it with --attacks square"
        )


def _looks_like_probabilities(logits: Tensor) -> list[str]:
    if bool(probabilities(logits).all()):
        return ["the outputs look like probabilities; attacks expect logits"]
    return []


def _logits(classifier: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return classifier(x).float()  # type: ignore[no-any-return]
