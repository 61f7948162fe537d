"""A collection in forms that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from zoo.collection.entries import Published, read_entry
from zoo.collection.index import EncoderRow, leave_out
from zoo.collection.model_card import EVAL_RESULTS, README, eval_results, readme
from zoo.collection.sources import Source
from zoo.errors import RobrepError, UserError, VerificationError, nearest
from zoo.files import write_text
from zoo.repository import every_eval_ever
from zoo.schema import as_text

Files = Iterator[tuple[str, str]]
"""Places and contents."""


def _hub(row: EncoderRow, entries: list[Published], developer: str, at: str) -> Files:
    """README.md with `model-index`, and .eval_results, as the hub wants them."""
    yield f"{row.card.name}/{README}", readme(row.card, entries, at)
    rows = eval_results(entries, at)
    if rows is not None:
        yield f"{row.card.name}/{EVAL_RESULTS}", rows


def _shared(
    row: EncoderRow, entries: list[Published], developer: str, at: str
) -> Files:
    """One record of Every Eval Ever for each entry."""
    for entry in entries:
        content = every_eval_ever.record(entry, developer, at)
        yield every_eval_ever.place(entry, developer), as_text(content) + "\n"


FORMS: dict[str, Callable[[EncoderRow, list[Published], str, str], Files]] = {
    "model-card": _hub,
    "every-eval-ever": _shared,
}


def export(
    source: Source, to: Path, form: str, *, developer: str = "robrep"
) -> list[Path]:
    """Writes every encoder and entry of a collection in another form.

    Args:
        source: The collection.
        to: Folder, made if need be; what is there already stays.
        form: One of `FORMS`.
        developer: Who made the encoders; part of Every Eval Ever's names.

    Returns:
        The files written.

    Raises:
        UserError: an unknown form, a name that cannot be, or a folder that cannot be
            written or holds a file of such a name with other content.
        VerificationError: after everything else was written: entries or encoders that
            cannot be read; names each.
    """
    if form not in FORMS:
        raise UserError(f"no form '{form}'; {nearest(form, FORMS)}")
    every_eval_ever.check_developer(developer)
    made: dict[Path, str] = {}
    broken = dict(source.left_out)
    for row in sorted(source.index.encoders, key=lambda row: row.card.name):
        entries = _readable(source, row, broken)
        for place, text in FORMS[form](row, entries, developer, source.uri):
            made[to / place] = text
    for path, text in made.items():
        _check_free(path, text)
    for path, text in made.items():
        try:
            write_text(path, text)
        except OSError as error:
            raise UserError(f"cannot write to {path}: {error.strerror}") from None
    if broken:
        told = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
        raise VerificationError(f"{len(made)} files in {to}; left out: {told}")
    return list(made)


def _readable(
    source: Source, row: EncoderRow, broken: dict[str, str]
) -> list[Published]:
    """Entries of an encoder; `broken` gets the others, with the reasons."""
    found = []
    for name in row.entries:
        try:
            found.append(read_entry(source, row, name))
        except (RobrepError, OSError) as error:
            leave_out(broken, f"{row.card.name}/{name}", error)
    return found


def _check_free(path: Path, text: str) -> None:
    """Raises `UserError` if something else than that text stands there."""
    if not path.exists():
        return
    if not path.is_file() or path.read_bytes() != text.encode():
        raise UserError(
            f"{path} exists already with other content; name another folder (--to)"
        )
