"""What a measurement is, and the finished evaluation that one is made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

from torch import Tensor, nn

from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.evidence_file import Claims
from zoo.layout import ON_CPU, Layout
from zoo.measurements import Measured
from zoo.records import Result
from zoo.settings import LAYOUT, differing, plain

R = TypeVar("R", bound=Measured)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An evaluation as it was found."""

    result: Result
    classifier: Classifier
    data: Dataset
    claims: Callable[[], Claims]
    """Reads the counted adversarials."""
    train: Callable[[], Dataset]
    """Reads the training split, for probes on noisy features."""
    layout: Layout = ON_CPU
    shared: dict[str, Any] = field(default_factory=dict)
    """Work that several measurements share."""

    @cached_property
    def x(self) -> Tensor:
        """All evaluated images (N, C, H, W), read once; for those that are many,
        `data.batches`."""
        return self.data.images(slice(None))

    @property
    def y(self) -> Tensor:
        """Their labels (N,)."""
        return self.data.labels


@dataclass(frozen=True, kw_only=True)
class Measurement(ABC, Generic[R]):
    """One measurement beside the attacks; its fields are its settings."""

    name: ClassVar[str]
    """The key of its record in a result."""
    record: ClassVar[type[Measured]]
    """What it comes to."""
    shares: ClassVar[str] = ""
    """Work, by name, that it shares with others: one process makes all of them."""

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self | None:
        """From the options of `robrep-eval`, by name; None if it is not asked for."""
        return None

    def check(self, encoder: nn.Module | None, data: Dataset) -> None:
        """Raises `UserError` for what is bound to fail, before any work begins.

        Args:
            encoder: To be probed, or None for a ready-made classifier.
            data: Images to be evaluated.
        """

    def applies(self, finished: Finished) -> bool:
        """False where there is nothing to measure, which is then left out."""
        return True

    def noted(self, finished: Finished) -> dict[str, Any]:
        """Every setting that can change the record, which carries them."""
        return asdict(self)

    def said(self, record: R, finished: Finished) -> dict[str, Any]:
        """The settings that a record was made with.

        What it does not note, because the setting is younger, was at its default.
        """
        return {**plain(type(self)().noted(finished)), **record.settings}

    def has(self, record: R, finished: Finished) -> bool:
        """Whether a record that the result holds is what this would make anew."""
        wanted = plain(self.noted(finished))
        return not differing(self.said(record, finished), wanted, without=LAYOUT)

    @abstractmethod
    def make(self, finished: Finished, on_progress: Callable[[float], None]) -> R:
        """Measures.

        Args:
            finished: What is measured.
            on_progress: Called with the share of the work done, if that is long.

        Raises:
            UserError: this model, dataset or threat model cannot have it.
        """

    @classmethod
    def told(cls, record: R, result: Result) -> str:
        """What the command prints of it below its table; mostly one line."""
        return ""
