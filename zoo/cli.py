"""`robrep-zoo`: find, get, publish, check, rank and submit encoders.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import json

import rich_click as click

from zoo._version import __version__
from zoo.commands import run
from zoo.records import Card, Training
from zoo.sources import VARIABLE

SOURCE = click.option(
    "--source",
    envvar=VARIABLE,
    metavar="WHERE",
    help="embedded (default), a folder, https://HOST/PATH or hf://ORG/REPO.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON only.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robrep-zoo")
def cli() -> None:
    """Robust encoders with names: find, get, publish, check, rank and submit them.

    \b
    Examples:
      robrep-zoo list
      robrep-zoo show tarrl-digits
      robrep-zoo verify --all --source hf://ORG/REPO
      robrep-zoo leaderboard --html leaderboard.html
    """


def main() -> None:
    """Entry point of the command."""
    run(cli, "robrep-zoo")


@cli.command("list")
@SOURCE
@AS_JSON
def list_(source: str | None, as_json: bool) -> None:
    """List the encoders of the zoo."""
    from zoo.sources import open_source

    collection = open_source(source)
    rows = sorted(collection.index.encoders, key=lambda row: row.card.name)
    if as_json:
        click.echo(json.dumps([row.card.model_dump(mode="json") for row in rows]))
        return
    from rich.table import Table

    table = Table(title=f"zoo: {collection.uri}", title_justify="left")
    for heading in (
        "name",
        "architecture",
        "method",
        "trained on",
        "against",
        "images",
    ):
        table.add_column(heading, no_wrap=heading == "name")
    table.add_column("entries", justify="right")
    for row in rows:
        cells = [row.card.name, *_columns(row.card), str(len(row.entries))]
        table.add_row(*map(_plain, cells))
    _print(table)


def _columns(card: Card) -> list[str]:
    training = card.training
    return [
        card.arch,
        training.method,
        training.dataset,
        str(training.threat or "clean"),
        "x".join(map(str, card.shape)),
    ]


def _plain(text: str) -> str:
    """Without control characters, which could steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _print(renderable: object) -> None:
    """Text of other people is printed as it is, never read as markup."""
    from rich.console import Console

    Console(markup=False, highlight=False).print(renderable)


@cli.command()
@click.argument("name")
@SOURCE
@AS_JSON
def show(name: str, source: str | None, as_json: bool) -> None:
    """Show the card of the encoder NAME."""
    from zoo.sources import open_source

    row = open_source(source).find(name)
    if as_json:
        click.echo(json.dumps(row.card.model_dump(mode="json"), indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in _facts(row.card).items():
        table.add_row(Text(key, style="bold"), Text(_plain(value)))
    table.add_row(Text("entries", style="bold"), Text("\n".join(row.entries) or "none"))
    _print(table)


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
