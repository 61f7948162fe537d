"""The zoo as people use it: names, cards, weights and encoders of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError
from zoo.index import CARD
from zoo.records import Card, read_record
from zoo.sources import Source, open_source

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
    from zoo.encoder import load_encoder

    collection = opened(source)
    row = collection.find(name)
    path = weights(name, collection)
    if read_record(collection.fetch(row, CARD), Card) != row.card:
        raise UserError(f"the card of zoo:{name} is not the one that the index holds")
    encoder = load_encoder(path)
    found = (encoder.spec.arch, encoder.spec.shape, encoder.dim)
    stated = (row.card.arch, row.card.shape, row.card.dim)
    if found != stated:
        raise UserError(
            f"the card of zoo:{name} states (architecture, shape, features) {stated}, "
            f"but its weights are {found}; one of them was altered"
        )
    return encoder
