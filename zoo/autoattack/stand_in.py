"""AutoAttack with the calling convention of its authors, over pyautoattack."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn


class AutoAttack(pyautoattack.AutoAttack):  # type: ignore[misc] # untyped
    """AutoAttack as its authors call it; the attacks are pyautoattack's.

    Members can be set up as in the original (`adversary.apgd.n_restarts = 2`,
    `adversary.attacks_to_run = ["apgd-ce"]`).

    Args:
        model: Images (N, C, H, W) in [0, 1] to logits.
        norm: "Linf", "L2" or "L1".
        eps: Radius.
        seed: None seeds from the clock.
        verbose: Write the log to stderr.
        attacks_to_run: For version "custom" alone.
        version: "standard", "plus", "rand" or "custom".
        is_tf_model: Only False is possible here.
        device: By default CUDA where there is one.
        log_path: Also append the log to this file.

    Raises:
        ValueError: attacks for a version that has its own, or a TensorFlow model.
    """

    def __init__(
        self,
        model: nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] | None = None,
        version: str = "standard",
        is_tf_model: bool = False,
        device: str | torch.device | None = None,
        log_path: str | Path | None = None,
    ) -> None:
        if is_tf_model:
            raise ValueError("TensorFlow models are not supported by pyautoattack")
        attacks = list(attacks_to_run or [])
        super().__init__(
            model,
            norm=norm,
            eps=eps,
            seed=seed,
            version=version,
            attacks=attacks if attacks or version == "custom" else None,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        )
        self.is_tf_model = False
        self.attacks_to_run: list[str] = list(self.attacks_to_run)
        self.verbose = verbose
        self.logger = _logger(verbose, log_path)
        self.apgd.logger = self.apgd_targeted.logger = self.logger

    def set_version(self, version: str = "standard") -> None:
        """Settings of a named version."""
        self._set_version(version)

    def run_standard_evaluation(  # the authors' signature, not pyautoattack's
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: Path | None = None,
        *,
        batch_size: int | None = None,
    ) -> Any:
        """Adversarials like `x_orig`, with predicted labels if asked for.

        `batch_size` is how pyautoattack's own methods call this one: they want both.
        """
        both = super().run_standard_evaluation(
            x_orig, y_orig, batch_size=batch_size or bs, state_path=state_path
        )
        return both if return_labels or batch_size else both[0]

    def run_standard_evaluation_individual(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
    ) -> dict[str, Any]:
        """The same for each attack on all points, by attack name."""
        attacks, verbose = self.attacks_to_run, self.verbose
        found = super().run_standard_evaluation_individual(
            x_orig, y_orig, batch_size=bs
        )
        self.attacks_to_run, self.verbose = attacks, verbose
        return {k: pair if return_labels else pair[0] for k, pair in found.items()}


def _logger(verbose: bool, log_path: str | Path | None) -> logging.Logger:
    """A logger of this instance's own: what it writes, it writes once."""
    logger = logging.Logger("auto-attack", logging.DEBUG)
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if verbose:
        handlers.append(logging.StreamHandler())
    if log_path is not None:
        handlers.append(logging.FileHandler(log_path, delay=True))
    for handler in handlers:
        logger.addHandler(handler)
    return logger
