"""Ground floor of robrep: everything that has a name and can be checked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo import autoattack
from zoo._version import __version__
from zoo.errors import RobrepError, UserError, VerificationError
from zoo.threat import ThreatModel

if TYPE_CHECKING:
    from zoo.classifier import Classifier
    from zoo.datasets.base import Dataset
    from zoo.encoder import Encoder
    from zoo.result_file import read_result
    from zoo.verification import verify_folder

__all__ = [
    "Classifier",
    "Dataset",
    "Encoder",
    "RobrepError",
    "ThreatModel",
    "UserError",
    "VerificationError",
    "__version__",
    "load",
    "read_result",
    "verify_folder",
]

_WHERE = {
    "Classifier": "zoo.classifier",
    "Dataset": "zoo.datasets.base",
    "Encoder": "zoo.encoder",
    "read_result": "zoo.result_file",
    "verify_folder": "zoo.verification",
}


autoattack.provide()


def load(name: str, source: str | None = None) -> Encoder:
    """The encoder that the zoo publishes as `name`, in eval mode.

    Args:
        name: As `robrep-zoo list` shows it.
        source: embedded, a folder, https://HOST/PATH or hf://ORG/REPO; by default what
            `ROBREP_ZOO` says, else embedded.

    Raises:
        UserError: unknown name, damaged or altered files.
        RobrepError: the source cannot be reached.

    Examples:
        >>> import zoo
        >>> zoo.load("tarrl-digits").dim
        64
    """
    from zoo.collection.store import load_encoder_by_name

    return load_encoder_by_name(name, source)


def __getattr__(name: str) -> Any:
    """Imports on first use: the commands answer --help without torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
