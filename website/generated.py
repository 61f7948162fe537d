"""Pages that follow from the code, or lie at the root of the repository."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
WIDTH = 80
"""Characters of an example's line, so that none is cut off on a page."""
AT_THE_ROOT = {
    "project/contributing.md": "CONTRIBUTING.md",
    "project/changelog.md": "CHANGELOG.md",
    "project/security.md": "SECURITY.md",
    "project/code-of-conduct.md": "CODE_OF_CONDUCT.md",
}
"""Pages of the site that lie elsewhere, where hosts of repositories look for them."""


def pages() -> dict[str, str]:
    """Markdown by the page's place below docs/."""
    from pretrain.cli import command as pretraining
    from robrep_eval.commands.cli import cli as evaluation
    from zoo.commands.cli import cli as collection

    return {
        "reference/robrep-eval.md": "\n".join(_command("robrep-eval", evaluation)),
        "reference/robrep-pretrain.md": "\n".join(
            _command("robrep-pretrain", pretraining)
        ),
        "reference/robrep-zoo.md": "\n".join(_command("robrep-zoo", collection)),
        "reference/recipes.md": recipes(),
        **{page: _from_the_root(ROOT / file) for page, file in AT_THE_ROOT.items()},
    }


def _from_the_root(file: Path) -> str:
    """The file, with links that hold from a page one folder below docs/."""
    text = file.read_text(encoding="utf-8").replace("](docs/", "](../")
    for page, name in AT_THE_ROOT.items():
        text = text.replace(f"]({name})", f"](../{page})")
    return text


def _command(name: str, command: click.Command, level: int = 1) -> Iterator[str]:
    """Help of a command and of those below it, from click itself."""
    context = click.Context(command, info_name=name)
    yield f"{'#' * level} {name}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{name} {usage}\n```\n"
    yield _prose(command.help or "") + "\n"
    rows = [row for option in command.params if (row := _option(option, context))]
    if rows:
        yield "| option | meaning | default |\n|---|---|---|"
        yield "\n".join(rows) + "\n"
    if examples := _examples(command.epilog or ""):
        yield f"Examples:\n\n```text\n{examples}\n```\n"
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            assert below is not None
            yield from _command(f"{name} {verb}", below, level + 1)


def _prose(text: str) -> str:
    return inspect.cleandoc(text.replace("\b", ""))


def _option(option: click.Parameter, context: click.Context) -> str | None:
    """A row of the table of options; None for arguments, which the usage shows."""
    if not isinstance(option, click.Option) or option.hidden:
        return None
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    text = re.sub(r"\s*\[default: .*?\]", "", option.help or "")
    default = option.get_default(context)
    shown = ""
    if isinstance(option.show_default, str):
        shown = option.show_default
    elif isinstance(default, str | int | float) and not option.is_flag:
        shown = str(default)
    cells = (names + _cell(value), _cell(text), f"`{shown}`" if shown else "")
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Text as one cell of a table: neither a bar nor a tag in it."""
    plain = " ".join(text.split()).replace("|", "\\|")
    return (" " if text.startswith(" ") else "") + plain.replace("<", "&lt;")


def _examples(epilog: str) -> str:
    """The commands of an epilog, each on as many lines as a page is wide for."""
    lines = [line.strip() for line in epilog.replace("\b", "").splitlines()]
    return "\n".join(_folded(line) for line in lines if line and line != "Examples:")


def _folded(command: str) -> str:
    """The same command for a shell; a long one goes on below, before an option."""
    first, *rest = re.split(r" (?=-)", command)
    lines = [first]
    for part in rest:
        if len(lines[-1]) + len(part) + 3 > WIDTH:
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _network(given: str | dict[str, str]) -> str:
    """An architecture, or the encoder that a run starts from."""
    return given if isinstance(given, str) else given["model"]


def recipes() -> str:
    """One section per recipe of robrep's own, from the files themselves."""
    from pretrain.recipe import RECIPES, built_in, load_recipe

    lines = [
        "# Recipes\n",
        "Every recipe that comes with robrep; what the settings mean stands in",
        "[Pretraining](pretraining.md). `robrep-pretrain NAME --explain` prints all in",
        "force, `-o KEY=VALUE` changes them.\n",
        "| recipe | method | images | network | adversary |\n|---|---|---|---|---|",
    ]
    notes = []
    for name in sorted(built_in()):
        content = load_recipe(name)
        threat = content.get("threat")
        adversary = f"{threat['norm']} {threat['eps']}" if threat else "none"
        network = content.get("arch") or content.get("init", "")
        cells = [content.get("method", ""), content.get("data", ""), _network(network)]
        lines.append(f"| [`{name}`](#{name}) | {' | '.join(cells)} | {adversary} |")
        text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
        notes.append(f"\n## {name}\n\n```yaml\n{text.strip()}\n```")
    return "\n".join(lines + notes) + "\n"
