"""Ground floor of robrep: everything that has a name and can be checked again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo import autoattack
from zoo._version import __version__
from zoo.errors import RobrepError, UserError, VerificationError
from zoo.threat import ThreatModel

if TYPE_CHECKING:
    from zoo.encoder import Encoder

__all__ = [
    "RobrepError",
    "ThreatModel",
    "UserError",
    "VerificationError",
    "__version__",
    "load",
]


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

    >>> import zoo
    >>> zoo.load("tarrl-digits").dim
    64
    """
    from zoo.collection.store import load_encoder_by_name

    return load_encoder_by_name(name, source)
