"""What health checks look at, and the few quantities that several of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.classifier import Classifier
from zoo.compact import Images
from zoo.datasets.base import Dataset
from zoo.layout import ON_CPU, Layout
from zoo.records import Examples
from zoo.threat import ThreatModel

MAX_SHOWN = 20
"""Examples that a flag names at most."""

MAX_STANDING = 32
"""Images that the battery left and that get attacks of other kinds."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is checked, and on which images."""

    classifier: Classifier
    x: Tensor
    """A few hundred clean images (N, C, H, W)."""
    y: Tensor
    ids: list[int]
    """Position of each image in the published split."""
    threat: ThreatModel
    seed: int = 0
    layout: Layout = ON_CPU
    examples: Examples | None = None
    """Outcomes of the battery on the whole set, once it has run."""
    whole: Dataset | None = None
    """That set, in the order of `examples`."""
    adversarials: Tensor | Images | None = None
    """Counted adversarials (k, C, H, W) ..."""
    origins: Tensor | Dataset | None = None
    """... the clean images they came from ..."""
    owners: Tensor | None = None
    """... and the row of each in `examples`, int64 (k,)."""
    standing: int = MAX_STANDING
    """Images that the battery left and that get attacks of other kinds, at most."""
    cache: dict[str, Any] = field(default_factory=dict)
    """Work that several checks share."""

    def logits(self, x: Tensor) -> Tensor:
        """Without gradients but not in inference mode, which strangers may break."""
        with torch.no_grad():
            parts = [
                self.classifier(part.to(self.layout.device)).cpu()
                for part in x.split(self.layout.batch_size)
            ]
        return torch.cat(parts)

    def shown(self, rows: Tensor) -> list[int]:
        """Ids of the first rows where the mask (N,) is true."""
        return [self.ids[i] for i in rows.nonzero().flatten().tolist()[:MAX_SHOWN]]

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)
