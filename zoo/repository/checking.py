"""What a change adds to a repository of results, and whether it may.

Three questions, in this order: does everything lie where it belongs, did nothing change
that was published, and does every claim of what is new hold by forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zoo.collection.audit import Audit, Item, audit
from zoo.collection.entries import DELTAS, HEAD, WHOLE, Published, read_entry
from zoo.collection.index import CARD, ENTRY
from zoo.collection.sources_results import (
    WEIGHTS_ELSEWHERE,
    RevisionSource,
    check_repository,
    revision_of,
)
from zoo.errors import RobrepError
from zoo.files import sha256_file
from zoo.result_file import PATTERN, RESULT
from zoo.task_version import shown, version_of

Key = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class New:
    """A task, or a revision with its weights, that the change adds."""

    folder: Path
    verdict: Audit
    published: Published | None = None
    """Of a task that can be read."""
    before: Published | None = None
    """The same task of an earlier revision of the model."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was found."""

    new: list[New] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What is out of place, altered or lost; each a sentence."""

    @property
    def unchecked(self) -> list[New]:
        """Whose images are not here."""
        return [new for new in self.new if new.verdict.unchecked]

    @property
    def failed(self) -> list[New]:
        """Whose claims do not hold."""
        return [n for n in self.new if not n.verdict.holds and not n.verdict.unchecked]


def check(
    root: Path,
    base: Path | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
) -> Change:
    """Checks a repository; of claims, those that it has and `base` has not.

    Args:
        root: With the change.
        base: As it was before; without it everything is new.
        data_dir: Where the datasets lie.
        device: Of the forward passes.

    Raises:
        UserError: one of the folders is no repository of results.
    """
    check_repository(root)
    faults = list(_altered(root, base)) if base else []
    new: list[New] = []
    known: dict[Key, Published] = {}
    for model in _folders(root):
        if not any(model.iterdir()):
            continue
        for folder in _folders(model):
            found = list(_misplaced(folder))
            faults += found
            if not found:
                new += _added(folder, root, base, known, data_dir, device)
        faults += [
            f"{_name(path, root)} does not belong there: a model has revisions alone"
            for path in sorted(model.iterdir())
            if not path.is_dir()
        ]
    return Change(new=new, faults=faults + _twice(root))


def _folders(place: Path) -> list[Path]:
    """Of models or revisions; what begins with a dot is of the repository's host."""
    return sorted(
        path
        for path in place.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _published_files(root: Path) -> dict[str, Path]:
    """All files of models, by their place."""
    return {
        _name(path, root): path
        for model in _folders(root)
        for path in sorted(model.rglob("*"))
        if path.is_file()
    }


def _altered(root: Path, base: Path) -> Iterator[str]:
    """Published files that changed or went."""
    check_repository(base)
    now = _published_files(root)
    for name, path in _published_files(base).items():
        if name not in now:
            yield f"{name} was published and is gone"
        elif sha256_file(now[name]) != sha256_file(path):
            yield f"{name} was published and is changed"


def _misplaced(folder: Path) -> Iterator[str]:
    """What is wrong with the places of one revision's files."""
    root = folder.parent.parent
    if folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*")):
        yield f"{_name(folder, root)} holds links; files must lie there themselves"
        return
    try:
        source = RevisionSource(folder)
        row = source.index.encoders[0]
    except RobrepError as error:
        yield f"{_name(folder, root)}: {_without(str(error), root)}"
        return
    card = row.card
    place = (card.name, revision_of(card))
    if place != (folder.parent.name, folder.name):
        yield f"{_name(folder, root)} holds what belongs to {'/'.join(place)}"
    allowed = {CARD, card.weights, WEIGHTS_ELSEWHERE, *row.entries}
    for path in sorted(folder.iterdir()):
        if path.name not in allowed:
            yield f"{_name(path, root)} does not belong there"
        elif path.name in row.entries:
            yield from _strangers(path, root)


def _strangers(task: Path, root: Path) -> Iterator[str]:
    """Files beside those of an entry."""
    allowed = (ENTRY, RESULT, HEAD, WHOLE, DELTAS, PATTERN)
    for path in sorted(task.rglob("*")):
        if path.parent != task or not any(path.match(name) for name in allowed):
            yield f"{_name(path, root)} does not belong there"


def _without(text: str, root: Path) -> str:
    """A message without where the repository lies."""
    return text.replace(f"{root}/", "")


def _added(
    folder: Path,
    root: Path,
    base: Path | None,
    known: dict[Key, Published],
    data_dir: Path | None,
    device: str,
) -> Iterator[New]:
    """What `base` has not of one revision, checked.

    `known` collects the results that are no news, by model and task.
    """
    source = RevisionSource(folder)
    row = source.index.encoders[0]
    before = base / _name(folder, root) if base else None
    if before is None or not (before / CARD).is_file():
        verdict = audit(source, Item(row=row, entry=None), data_dir=data_dir)
        yield New(folder=folder, verdict=verdict)
    for name in row.entries:
        published = _read(source, name)
        key = (row.card.name, *(task_key(published) if published else ()))
        if before and (before / name / ENTRY).is_file():
            if published:
                known[key] = published
            continue
        item = Item(row=row, entry=name)
        yield New(
            folder=folder / name,
            verdict=audit(source, item, data_dir=data_dir, device=device),
            published=published,
            before=known.get(key),
        )


def _read(source: RevisionSource, name: str) -> Published | None:
    try:
        return read_entry(source, source.index.encoders[0], name)
    except RobrepError:
        return None  # its audit says why


def task_key(published: Published) -> Key:
    """What makes two results answers to one question."""
    data, result = published.result.dataset, published.result
    return (
        *(data.name, data.split, str(result.threat), published.protocol),
        *(published.battery, shown(version_of(result))),
    )


def _twice(root: Path) -> list[str]:
    """Revisions with two answers to one question, and weights under two names."""
    found = []
    names: dict[str, Path] = {}
    for folder in (f for model in _folders(root) for f in _folders(model)):
        source = RevisionSource(folder)
        try:
            row = source.index.encoders[0]
        except RobrepError:
            continue  # told already
        other = names.setdefault(row.card.sha256, folder)
        if other != folder:
            found.append(
                f"{_name(folder, root)} holds the weights of {_name(other, root)}"
            )
        tasks: dict[Key, str] = {}
        for name in row.entries:
            published = _read(source, name)
            if published is None:
                continue
            first = tasks.setdefault(task_key(published), name)
            if first != name:
                found.append(
                    f"{_name(folder / name, root)} answers the same question as "
                    f"{first}: one result for a task"
                )
    return found
