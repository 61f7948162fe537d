"""What lies in a repository of results: plain files and folders, each in its place.

Nothing here follows a link, or opens what is no plain file.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from zoo.collection.entries import DELTAS, HEAD, WHOLE
from zoo.collection.index import CARD, ENTRY
from zoo.collection.sources_results import (
    WEIGHTS_ELSEWHERE,
    RevisionSource,
    check_repository,
    revision_of,
)
from zoo.collection.worst_case import WORST, WORST_DELTAS
from zoo.errors import RobrepError
from zoo.files import sha256_file
from zoo.result_file import PATTERN, RESULT


def folders(place: Path) -> list[Path]:
    """Of models or revisions, sorted."""
    return sorted(path for path in place.iterdir() if _mode(path, stat.S_ISDIR))


def models(root: Path) -> list[Path]:
    """Folders at the top; what begins with a dot is of the repository's host."""
    return [path for path in folders(root) if not path.name.startswith(".")]


def name_in(root: Path, path: Path) -> str:
    """A path as faults name it."""
    return path.relative_to(root).as_posix()


def _mode(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether the path itself, not what it may lead to, is of a kind."""
    return kind(path.lstat().st_mode)


def _walked(path: Path) -> Iterator[Path]:
    """The path and all below it; links are yielded, not followed."""
    yield path
    if _mode(path, stat.S_ISDIR):
        for below in sorted(path.iterdir()):
            yield from _walked(below)


def irregular(root: Path, model: Path | None = None) -> Iterator[str]:
    """A sentence for each link, pipe or device of a repository, or of one model."""
    top = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    for path in (
        path for place in ([model] if model else top) for path in _walked(place)
    ):
        if _mode(path, stat.S_ISLNK):
            yield f"{name_in(root, path)} is a link; files must lie there themselves"
        elif not _mode(path, stat.S_ISDIR) and not _mode(path, stat.S_ISREG):
            yield f"{name_in(root, path)} is neither a file nor a folder"


def _files(root: Path) -> dict[str, Path]:
    """All plain files of models, by their place."""
    return {
        name_in(root, path): path
        for model in models(root)
        for path in _walked(model)
        if _mode(path, stat.S_ISREG)
    }


def altered(root: Path, base: Path) -> Iterator[str]:
    """What changed, went or came in revisions and tasks that `base` has.

    A model may get revisions and a revision tasks; these are published as they are.
    """
    check_repository(base)
    before, now = _files(base), _files(root)
    for name, path in before.items():
        if name not in now:
            yield f"{name} was published and is gone"
        elif sha256_file(now[name]) != sha256_file(path):
            yield f"{name} was published and is changed"
    closed = {_place(name) for name in before}
    closed |= {"/".join(name.split("/")[:2]) for name in before}
    for name in sorted(now.keys() - before.keys()):
        if _place(name) in closed:
            yield f"{name} is added to what was published"


def _place(name: str) -> str:
    """MODEL/REVISION/TASK or MODEL/REVISION, whichever a file belongs to."""
    parts = name.split("/")
    return "/".join(parts[: 3 if len(parts) > 3 else 2])


def misplaced(folder: Path, root: Path) -> Iterator[str]:
    """What is wrong with the places of one revision's files."""
    try:
        source = RevisionSource(folder)
        row = source.index.encoders[0]
    except RobrepError as error:
        yield f"{name_in(root, folder)}: {str(error).replace(f'{root}/', '')}"
        return
    card = row.card
    place = (card.name, revision_of(card))
    if place != (folder.parent.name, folder.name):
        yield f"{name_in(root, folder)} holds what belongs to {'/'.join(place)}"
    allowed = {CARD, card.weights, WEIGHTS_ELSEWHERE, *row.entries}
    for path in sorted(folder.iterdir()):
        if path.name not in allowed:
            yield f"{name_in(root, path)} does not belong there"
        elif path.name in row.entries:
            yield from _strangers(path, root)


def _strangers(task: Path, root: Path) -> Iterator[str]:
    """Files beside those of an entry."""
    allowed = (ENTRY, RESULT, HEAD, WHOLE, DELTAS, PATTERN)
    for path in sorted(task.rglob("*")):
        known = any(path.match(name) for name in allowed) or any(
            name.fullmatch(path.name) for name in (WORST, WORST_DELTAS)
        )
        if path.parent != task or not known:
            yield f"{name_in(root, path)} does not belong there"
