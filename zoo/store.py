"""The zoo as a collection of folders: a card and a weights file for each encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError, nearest
from zoo.files import sha256_file
from zoo.records import Card, read_record

if TYPE_CHECKING:
    from zoo.encoder import Encoder

EMBEDDED = Path(__file__).parent / "embedded"
CARD = "card.json"


def names(root: Path = EMBEDDED) -> list[str]:
    """Names of all encoders under `root`, sorted."""
    return sorted(path.parent.name for path in root.glob(f"*/{CARD}"))


def card(name: str, root: Path = EMBEDDED) -> Card:
    """The card of `name`; raises `UserError` with the nearest names."""
    if name not in names(root):
        raise UserError(
            f"the zoo has no encoder '{name}'; {nearest(name, names(root))}"
        )
    found = read_record(root / name / CARD, Card)
    if found.name != name:
        raise UserError(f"{root / name / CARD} is the card of '{found.name}'")
    return found


def weights(name: str, root: Path = EMBEDDED) -> Path:
    """Path of the weights of `name`, after their checksum has been compared."""
    described = card(name, root)
    path = root / name / described.weights
    if not path.is_file():
        raise UserError(f"the weights of zoo:{name} are missing: no file {path}")
    if sha256_file(path) != described.sha256:
        raise UserError(
            f"{path} does not have the SHA-256 that its card states; "
            "it is damaged or was altered: get it again"
        )
    return path


def load_encoder_by_name(name: str, root: Path = EMBEDDED) -> Encoder:
    """The encoder `name`, in eval mode, checked against its card."""
    from zoo.encoder import load_encoder

    return load_encoder(weights(name, root))
