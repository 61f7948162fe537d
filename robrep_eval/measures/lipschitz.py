"""The Lipschitz certificate as a measurement; `zoo.lipschitz` proves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from robrep_eval.measures.base import Finished, Measurement
from zoo.datasets.base import Dataset
from zoo.lipschitz import certify_lipschitz, lipschitz_constant
from zoo.measurements import LipschitzCertificate
from zoo.records import Result


@dataclass(frozen=True, kw_only=True)
class LipschitzMargins(Measurement[LipschitzCertificate]):
    """Certified accuracy from the weights; nothing about it can be set."""

    name: ClassVar[str] = "lipschitz"
    record: ClassVar[type[LipschitzCertificate]] = LipschitzCertificate

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self:
        """--certify alone."""
        return cls()

    def check(self, encoder: nn.Module | None, data: Dataset) -> None:
        """The encoder's constant must be known."""
        lipschitz_constant(encoder or nn.Identity())

    def make(
        self, finished: Finished, on_progress: Callable[[float], None]
    ) -> LipschitzCertificate:
        """Of every image."""
        return certify_lipschitz(
            finished.classifier,
            finished.data,
            finished.y,
            finished.result.threat,
            finished.layout,
        )

    @classmethod
    def told(cls, record: LipschitzCertificate, result: Result) -> str:
        """The one figure that no attack can undo."""
        return (
            f"Certified: {record.certified} within {result.threat}, for every possible "
            f"attack (Lipschitz constant {record.constant:.4g} in {record.norm})."
        )
