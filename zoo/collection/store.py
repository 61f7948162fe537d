"""The zoo as people use it: names, cards, weights and encoders of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.collection.index import CARD
from zoo.collection.opening import open_source
from zoo.collection.sources import Source
from zoo.errors import UserError
from zoo.files import sha256_file
from zoo.records import Card, read_record

if TYPE_CHECKING:
    from zoo.encoder import Encoder

Where = Source | Path | str | None
"""A collection: opened, or as `--source` names it; None: as the environment says."""


def opened(source: Where) -> Source:
    """The collection itself."""
    return source if isinstance(source, Source) else open_source(source)


def names(source: Where = None) -> list[str]:
    """Names of all encoders of a collection, sorted."""
    return opened(source).index.names()


def cards(source: Where = None) -> list[Card]:
    """Cards of all encoders of a collection, sorted by name."""
    rows = opened(source).index.encoders
    return sorted((row.card for row in rows), key=lambda card: card.name)


def card(name: str, source: Where = None) -> Card:
    """The card of `name`; raises `UserError` with the nearest names."""
    return opened(source).find(name).card


def weights(name: str, source: Where = None) -> Path:
    """Local path of the weights of `name`, fetched if need be and checked.

    Raises:
        UserError: unknown name, or a file that is not what index and card state.
        RobrepError: the collection cannot be reached.
    """
    collection = opened(source)
    row = collection.find(name)
    if row.file(row.card.weights).sha256 != row.card.sha256:
        raise UserError(
            f"the weights of zoo:{name} do not have the SHA-256 that its card states; "
            "they are damaged or were altered: get them again"
        )
    return collection.fetch(row, row.card.weights)


def load_encoder_by_name(name: str, source: Where = None) -> Encoder:
    """The encoder `name`, in eval mode, checked against its card.

    Raises:
        UserError: as `weights`; or the file holds another encoder than the card says.
    """
    collection = opened(source)
    row = collection.find(name)
    path = weights(name, collection)
    if read_record(collection.fetch(row, CARD), Card) != row.card:
        raise UserError(f"the card of zoo:{name} is not the one that the index holds")
    return check_encoder(row.card, path)


def check_encoder(card: Card, path: Path) -> Encoder:
    """The encoder in `path`, if it is the one that `card` describes.

    Raises:
        UserError: another checksum, architecture, image shape or number of features.
    """
    from zoo.encoder import load_encoder

    if not path.is_file():
        raise UserError(f"the weights of zoo:{card.name} are missing: no file {path}")
    if sha256_file(path) != card.sha256:
        raise UserError(
            f"{path} does not have the SHA-256 that the card of zoo:{card.name} "
            "states; it is damaged or was altered: get it again"
        )
    encoder = load_encoder(path)
    found = (encoder.spec.arch, encoder.spec.shape, encoder.dim)
    stated = (card.arch, card.shape, card.dim)
    if found != stated:
        raise UserError(
            f"the card of zoo:{card.name} states (architecture, shape, features) "
            f"{stated}, but its weights are {found}; one of them was altered"
        )
    return encoder
