"""What a change adds to a repository of results, and whether it may.

Three questions, in this order: does everything lie where it belongs, did nothing change
that was published, and does every claim of what is new hold by forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zoo.collection.audit import Audit, Item, audit
from zoo.collection.entries import Published, read_entry
from zoo.collection.index import CARD, ENTRY
from zoo.collection.sources_results import RevisionSource, check_repository
from zoo.errors import RobrepError
from zoo.moments import ahead
from zoo.repository.tree import altered, folders, irregular, misplaced, models, name_in
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
    faults = [*irregular(root), *(altered(root, base) if base else ())]
    new: list[New] = []
    known: dict[Key, Published] = {}
    regular = [model for model in models(root) if not any(irregular(root, model))]
    for model in regular:
        for folder in folders(model):
            found = list(misplaced(folder, root))
            faults += found
            if not found:
                added = list(_added(folder, root, base, known, data_dir, device))
                faults += _to_come(added, root)
                new += added
        faults += [
            f"{name_in(root, path)} does not belong there: a model has revisions alone"
            for path in sorted(model.iterdir())
            if not path.is_dir()
        ]
    return Change(new=new, faults=faults + _twice(root, regular))


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
    before = base / name_in(root, folder) if base else None
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


def _to_come(added: list[New], root: Path) -> Iterator[str]:
    """The newest revision is the one that is shown: none may be so for ever."""
    for new in added:
        made = new.published and new.published.result.provenance.created
        if made and ahead(made):
            name = name_in(root, new.folder)
            yield f"{name} is dated {made:%Y-%m-%d}, which is to come"


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


def _twice(root: Path, models: list[Path]) -> list[str]:
    """Revisions with two answers to one question, and weights under two names."""
    found = []
    names: dict[str, Path] = {}
    for folder in (f for model in models for f in folders(model)):
        source = RevisionSource(folder)
        try:
            row = source.index.encoders[0]
        except RobrepError:
            continue  # told already
        other = names.setdefault(row.card.sha256, folder)
        if other != folder:
            found.append(
                f"{name_in(root, folder)} holds the weights of {name_in(root, other)}"
            )
        tasks: dict[Key, str] = {}
        for name in row.entries:
            published = _read(source, name)
            if published is None:
                continue
            first = tasks.setdefault(task_key(published), name)
            if first != name:
                found.append(
                    f"{name_in(root, folder / name)} answers the same question as "
                    f"{first}: one result for a task"
                )
    return found
