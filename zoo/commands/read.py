"""Commands of `robrep-zoo` that read: list, show, download, leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from zoo.commands.options import (
    AS_JSON,
    DATA_DIR,
    SOURCE,
    complete_name,
    naming,
    plain_table,
    show_table,
)
from zoo.errors import VerificationError
from zoo.files import copy_file
from zoo.plain_text import plain
from zoo.records import Card, Training

if TYPE_CHECKING:
    from rich.table import Table

    from zoo.collection.index import EncoderRow


@click.command("list")
@click.option("--dataset", "datasets", multiple=True, help="Trained on; repeatable.")
@click.option("--method", "methods", multiple=True, help="Such as tarrl; repeatable.")
@SOURCE
@AS_JSON
def list_(
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    source: str | None,
    as_json: bool,
) -> None:
    """List the encoders of the zoo.

    One whose card cannot be read hides no other: it is named at the end, exit code 1.
    """
    from zoo.collection.index import only
    from zoo.collection.opening import open_source

    collection = open_source(source)
    rows = sorted(collection.index.encoders, key=lambda row: row.card.name)
    rows = only(rows, "trained on", datasets, lambda row: row.card.training.dataset)
    rows = only(rows, "of method", methods, lambda row: row.card.training.method)
    if as_json:
        click.echo(json.dumps([row.card.model_dump(mode="json") for row in rows]))
    else:
        show_table(_encoder_table(f"zoo: {collection.uri}", rows))
    if collection.left_out:
        raise VerificationError("; ".join(collection.left_out.values()))


def _encoder_table(title: str, rows: list[EncoderRow]) -> Table:
    """Sorted by dataset, then by name."""
    from rich.text import Text

    count = f"{len(rows)} encoder{'s' if len(rows) != 1 else ''}"
    table = plain_table(f"{title}, {count}")
    for heading in ("name", "method", "against", "architecture", "images"):
        table.add_column(heading, no_wrap=heading == "name", overflow="fold")
    table.add_column("entries", justify="right")
    before = None
    for row in sorted(rows, key=lambda row: (row.card.training.dataset, row.card.name)):
        trained_on = row.card.training.dataset
        if trained_on != before:
            table.add_section()
            table.add_row(Text(plain(f"trained on {trained_on}"), style="italic"))
        before = trained_on
        cells = [row.card.name, *_columns(row.card), str(len(row.entries))]
        table.add_row(*map(plain, cells))
    return table


def _columns(card: Card) -> list[str]:
    return [
        card.training.method,
        str(card.training.threat or "clean"),
        card.arch,
        "x".join(map(str, card.shape)),
    ]


@click.command()
@click.argument("name", shell_complete=complete_name)
@SOURCE
@AS_JSON
def show(name: str, source: str | None, as_json: bool) -> None:
    """Show the card of the encoder NAME."""
    from zoo.collection.opening import open_source

    with naming(name):
        row = open_source(source).find(name)
    if as_json:
        click.echo(json.dumps(row.card.model_dump(mode="json"), indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in _facts(row.card).items():
        table.add_row(Text(key, style="bold"), Text(plain(value)))
    table.add_row(Text("entries", style="bold"), Text("\n".join(row.entries) or "none"))
    show_table(table)


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also copy everything into this folder.",
)
@SOURCE
def download(name: str, to: Path | None, source: str | None) -> None:
    """Download the encoder NAME with card and entries; print where it lies.

    A cut download goes on where it stopped. Checksums are compared before anything is
    used.
    """
    from zoo.collection.opening import open_source
    from zoo.collection.sources import check_file

    collection = open_source(source)
    row = collection.find(name)
    for file in row.files:
        path = collection.fetch(row, file.path)
        if to is not None and (to / file.path).exists():
            check_file(to / file.path, file, again="choose another --to")
        elif to is not None:
            copy_file(path, to / file.path)
    weights = collection.fetch(row, row.card.weights)
    click.echo(weights if to is None else to / row.card.weights)


@click.command()
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one self-contained page to this file.",
)
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown.")
@click.option("--latex", "form", flag_value="latex", help="Print a LaTeX tabular.")
@click.option("--json", "form", flag_value="json", help="Print JSON only.")
@click.option("--dataset", "datasets", multiple=True, help="Only this one; repeatable.")
@click.option(
    "--protocol", "protocols", multiple=True, help="SLF, SLF-R, ALF or AFF only."
)
@click.option("--verify", is_flag=True, help="Recompute every entry first.")
@DATA_DIR
@SOURCE
def leaderboard(
    html: Path | None,
    form: str | None,
    datasets: tuple[str, ...],
    protocols: tuple[str, ...],
    verify: bool,
    data_dir: Path | None,
    source: str | None,
) -> None:
    """Rank the entries of the zoo, with intervals, ties shown as ties."""
    from zoo.board import text as leaderboard_text
    from zoo.board.leaderboard import build
    from zoo.collection.opening import open_source

    board = build(
        open_source(source),
        datasets=datasets,
        protocols=protocols,
        verify=verify,
        data_dir=data_dir,
    )
    for reference, reason in board.left_out.items():
        click.echo(plain(f"left out: {reference}: {reason}"), err=True)
    if not board.rows:
        click.echo(f"no entries in the zoo ({board.source}) yet", err=True)
    if html is not None:
        from zoo.board.page import page
        from zoo.pages.html_page import write_page

        write_page(html, page(board))
        click.echo(f"wrote {html} ({len(board.rows)} entries)", err=True)
    if form == "json":
        click.echo(json.dumps(board.model_dump(mode="json"), indent=2))
    elif form == "markdown":
        click.echo(leaderboard_text.markdown(board), nl=False)
    elif form == "latex":
        click.echo(leaderboard_text.latex(board), nl=False)
    elif html is None:
        show_table(leaderboard_text.terminal(board))


def _facts(card: Card) -> dict[str, str]:
    """What a card says, absent things left out."""
    facts: dict[str, object] = {
        "name": card.name,
        "description": card.description,
        "architecture": card.arch,
        "images": "x".join(map(str, card.shape)),
        "features": card.dim,
        **_training_facts(card.training),
        "licence": card.licence,
        "source": card.source,
        "RobustBench ID": card.robustbench_id,
        "notes": card.notes,
        "SHA-256": card.sha256,
    }
    return {key: str(value) for key, value in facts.items() if value not in (None, "")}


def _training_facts(training: Training) -> dict[str, object]:
    used = [
        name
        for name, flag in (
            ("labels", training.labels),
            ("data beyond the dataset", training.extra_data),
        )
        if flag
    ]
    return {
        "method": training.method,
        "trained on": training.dataset,
        "against": training.threat or "nothing (clean)",
        "also used": ", ".join(used) or None,
        "epochs": training.epochs,
        "seed": training.seed,
        "command": training.command,
    }
