"""`robrep-zoo results`: a repository of results that others add to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from zoo.commands.options import DATA_DIR, RUNS, SOURCE
from zoo.plain_text import plain

if TYPE_CHECKING:
    from zoo.board.leaderboard import Board

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def results() -> None:
    """Keep results as a repository: MODEL/REVISION/TASK, checked at every change."""


@results.command()
@click.argument("folder", type=FOLDER)
def init(folder: Path) -> None:
    """Begin a repository of results in FOLDER, with the workflows that check it."""
    from zoo.repository.adding import start

    for path in start(folder):
        click.echo(path)


@results.command()
@RUNS
@click.option("--to", required=True, type=FOLDER, help="The repository.")
@click.option(
    "--weights",
    metavar="WHERE",
    help="Zoo that has the weights: embedded, hf://ORG/REPO or https://HOST/PATH. "
    "Default: copied into the repository, unless robrep has them.",
)
@click.option("--entry", help="Name of the task's folder, if the usual one is taken.")
@DATA_DIR
@SOURCE
def add(
    runs: tuple[Path, ...],
    to: Path,
    weights: str | None,
    entry: str | None,
    data_dir: Path | None,
    source: str | None,
) -> None:
    """Add runs to a repository, after every claim was verified.

    RUN is the folder of an evaluation, or of an encoder (card.json and weights).
    """
    from zoo.collection.publish import Publication
    from zoo.repository.adding import add as add_

    request = Publication(runs=runs, source=source, entry=entry, data_dir=data_dir)
    done = add_(request, to, weights)
    for name in done.added:
        click.echo(f"added {done.folder / name}")
    for name in done.known:
        click.echo(f"{done.folder / name} was there already")


@results.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--against",
    "base",
    type=FOLDER,
    help="The repository before the change; only what is new is then verified.",
)
@click.option(
    "--comment",
    "to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what the change adds to this file, as Markdown.",
)
@click.option(
    "--allow-unchecked",
    is_flag=True,
    help="Results whose images are not here are no error.",
)
@click.option("--device", default="cpu", show_default=True)
@DATA_DIR
def check(
    folder: Path,
    base: Path | None,
    to: Path | None,
    allow_unchecked: bool,
    device: str,
    data_dir: Path | None,
) -> None:
    """Check what a change adds to the repository in FOLDER, by forward passes alone.

    Everything must lie at MODEL/REVISION/TASK, nothing published may change or go, and
    each new claim must hold. Exit code 1 if one does not.
    """
    from zoo.device import check_device
    from zoo.errors import VerificationError
    from zoo.files import write_text
    from zoo.repository.checking import check as check_
    from zoo.repository.comment import comment

    check_device(device)
    change = check_(folder, base, data_dir=data_dir, device=device)
    text = comment(change, _board(folder))
    if to is not None:
        write_text(to, text)
    click.echo(plain(text), nl=False)
    wrong = [
        *change.faults,
        *(f"{n.verdict.item} does not hold" for n in change.failed),
    ]
    if not allow_unchecked:
        wrong += [f"{n.verdict.item} cannot be checked here" for n in change.unchecked]
    if wrong:
        raise VerificationError(plain(f"{len(wrong)} to mend: {'; '.join(wrong)}"))


@results.command()
@click.option("--to", required=True, type=FOLDER, help="A folder.")
@click.option(
    "--form", required=True, metavar="NAME", help="model-card or every-eval-ever."
)
@click.option(
    "--developer",
    default="robrep",
    show_default=True,
    help="Who made the encoders; part of every-eval-ever's names.",
)
@SOURCE
def export(to: Path, form: str, developer: str, source: str | None) -> None:
    """Write a zoo's entries in forms that other programs read.

    model-card: README.md with a model-index, and .eval_results, of each encoder.
    every-eval-ever: a record of that shared schema for each entry.
    """
    from zoo.collection.opening import open_source
    from zoo.repository.exporting import export as export_

    written = export_(open_source(source), to, form.lower(), developer=developer)
    click.echo(f"{len(written)} files in {to}")


def _board(folder: Path) -> Board:
    """The leaderboard of the repository; empty where that is too broken for one."""
    from zoo.board.leaderboard import Board, build
    from zoo.collection.opening import open_source
    from zoo.errors import RobrepError

    try:
        return build(open_source(folder))
    except RobrepError:
        return Board(source=str(folder), rows=[])
