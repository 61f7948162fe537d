"""What the commands of `robrep-zoo` share: options, and text that is safe to print."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from zoo.collection.opening import VARIABLE
from zoo.plain_text import plain

if TYPE_CHECKING:
    from rich.table import Table

SOURCE = click.option(
    "--source",
    envvar=VARIABLE,
    metavar="WHERE",
    help="embedded (default), a folder, https://HOST/PATH or hf://ORG/REPO.",
)
_RUN = click.Path(exists=True, file_okay=False, path_type=Path)
RUNS = click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=_RUN)
RUNS_IF_ANY = click.argument("runs", nargs=-1, metavar="[RUN]...", type=_RUN)
DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the datasets, if not robrep's own.",
)


def complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[str]:
    """Shell completion of an encoder's name, from the collection that is chosen."""
    from zoo.commands.completion import encoder_names

    return encoder_names(ctx.params.get("source"), incomplete)


@contextmanager
def naming(name: str | None) -> Iterator[None]:
    """Says of a name that no collection knows if it is an evaluation's folder here."""
    from zoo.errors import UserError
    from zoo.result_file import RESULT

    try:
        yield
    except UserError:
        path = Path(name or "")
        folder = path.parent if path.name == RESULT else path
        if name is None or not (folder / RESULT).is_file():
            raise
        raise UserError(
            f"'{name}' is a run folder, no name in a zoo; robrep-eval verify {name} "
            "checks it, robrep-zoo publish makes it an entry"
        ) from None


PIPE = 1000
"""Characters; wider than any table."""
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON only.")


def plain_table(title: str) -> Table:
    """A table with a rule below its head and two spaces between its columns."""
    from rich import box
    from rich.table import Table

    return Table(
        title=plain(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def show_table(renderable: object) -> None:
    """Text of other people is printed as it is, never read as markup."""
    from rich.console import Console

    # In a pipe, one row is one line: nothing is folded unless COLUMNS says so.
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    width = None if known else PIPE
    Console(markup=False, highlight=False, width=width).print(renderable)
