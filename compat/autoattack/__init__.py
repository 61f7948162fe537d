"""The import name `autoattack`, over pyautoattack.

robustbench's published wheel imports `autoattack` but depends on `pyautoattack`, so
after a plain install `import robustbench` fails. AutoAttack's own repository is on no
package index. This package supplies the name with the original calling convention;
the attacks are pyautoattack's. It knows nothing of robrep.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

__all__ = ["AutoAttack"]


class AutoAttack:
    """AutoAttack as its authors call it; see pyautoattack for the attacks.

    Args:
        model: Images (N, C, H, W) in [0, 1] to logits.
        norm: "Linf", "L2" or "L1".
        eps: Radius.
        seed: None seeds from the clock.
        verbose: Log progress to stderr.
        attacks_to_run: For version "custom".
        version: "standard", "plus", "rand" or "custom".
        is_tf_model: Only False is possible here.
        device: By default CUDA where there is one.
        log_path: Also append the log to this file.
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
        if version == "custom" and not attacks_to_run:
            raise ValueError("version 'custom' needs attacks_to_run")
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.runner = pyautoattack.AutoAttack(
            model,
            norm=norm,
            eps=eps,
            seed=seed,
            version=version,
            attacks=list(attacks_to_run or []) if version == "custom" else None,
            device=device or default,
        )
        self._log(verbose, log_path)

    @staticmethod
    def _log(verbose: bool, log_path: str | Path | None) -> None:
        logger = logging.getLogger("auto-attack")
        handlers: list[logging.Handler] = []
        if verbose and not logger.handlers:
            handlers.append(logging.StreamHandler())
        if log_path is not None:
            handlers.append(logging.FileHandler(log_path))
        for handler in handlers:
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: Path | None = None,
    ) -> Any:
        """Adversarials like `x_orig`, with predicted labels if asked for."""
        x_adv, y_adv = self.runner.run_standard_evaluation(
            x_orig, y_orig, batch_size=bs, state_path=state_path
        )
        return (x_adv, y_adv) if return_labels else x_adv

    def run_standard_evaluation_individual(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
    ) -> dict[str, Any]:
        """The same for each attack on all points, by attack name."""
        found = self.runner.run_standard_evaluation_individual(
            x_orig, y_orig, batch_size=bs
        )
        return {k: pair if return_labels else pair[0] for k, pair in found.items()}
