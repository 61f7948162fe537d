"""The command robrep-pretrain."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from zoo.commands.numbers import DECIMAL, WHOLE
from zoo.commands.shell import run
from zoo.datasets.names import OWN, recorded_name
from zoo.errors import UserError
from zoo.plain_text import recorded_command

if TYPE_CHECKING:
    from pretrain.progress import Reporter
    from pretrain.recipe import Recipe
    from pretrain.session import Surroundings

LONGEST = 96
"""Characters of a name, at most, that recipes and cards take."""
EXAMPLES = """
Examples:

  robrep-pretrain tarrl-digits

  robrep-pretrain my-recipe.yaml -o seed=1 -o attack.steps=3 --output runs/seed1

  robrep-pretrain --method tarrl --data fashion-mnist --arch resnet_s28 \
--norm Linf --eps 0.1 --epochs 20

  robrep-pretrain --init timm:vit_small_patch14_dinov2.lvd142m --method fare \
--data images:photos@3x224x224 --eps 4/255

  torchrun --nproc-per-node 2 -m pretrain tarrl-cifar10 --device cuda
"""


@click.command(
    epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("recipe", required=False, shell_complete=lambda *_: _recipe_names())
@click.option("--method", help="simclr, tarrl, ...; see --list.")
@click.option(
    "--init",
    metavar="REF",
    help="Start from an encoder that exists: zoo:NAME, a file, timm:NAME, "
    "hf://ORG/REPO. With another --arch: follow it.",
)
@click.option(
    "--normalize",
    metavar="MEAN/STD",
    help="Of a checkpoint file after --init: none, cifar10, imagenet, or "
    ".5,.5,.5/.25,.25,.25.",
)
@click.option(
    "--data",
    help="A dataset of the registry, imagefolder:PATH, or images:PATH: every image "
    "below PATH, without labels.",
)
@click.option(
    "--dataset-name",
    help="Of images of your own on the card, which holds no path.  [default: the last "
    "part of PATH]",
)
@click.option("--arch", help="An architecture of the registry, or timm:NAME.")
@click.option("--norm", help="Threat model: Linf, L2 or L1.")
@click.option("--eps", help="Radius in pixels of [0, 1], e.g. 8/255.")
@click.option("--epochs", type=WHOLE, help="Passes over the training images.")
@click.option("--passes", type=DECIMAL, help="Budget in forward passes per image.")
@click.option("--batch", type=WHOLE, help="Images per step over all processes.")
@click.option("--seed", type=WHOLE, help="Decides weights, order, views and starts.")
@click.option("--name", help="Of the encoder.")
@click.option(
    "-o",
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other setting, e.g. -o optimizer.lr=0.5; may be repeated.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Run folder.  [default: runs/NAME]",
)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where the dataset lies."
)
@click.option(
    "--workers",
    type=WHOLE,
    default=0,
    show_default=True,
    help="Processes that read and decode images while the network trains.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--wait", is_flag=True, help="Wait for another process in the run folder."
)
@click.option(
    "--estimate",
    "estimated",
    is_flag=True,
    help="Time a few steps, print what the run would cost, and stop.",
)
@click.option("--explain", is_flag=True, help="Print the whole recipe and stop.")
@click.option("--list", "show", is_flag=True, help="List methods and recipes.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    recipe: str | None,
    overrides: tuple[str, ...],
    output: Path | None,
    data_dir: Path | None,
    workers: int,
    device: str,
    wait: bool,
    estimated: bool,
    explain: bool,
    show: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Trains an encoder by a recipe, or goes on with a run that was cut off.

    RECIPE is a YAML file or the name of a recipe that comes with robrep; flags and
    -o change it. The run folder holds metrics, curves, a checkpoint, and the best and
    last encoder with their cards: use one with robrep-eval --model RUN/last.
    """
    if show:
        _print_list()
        return
    chosen = assemble(recipe, flags, overrides)
    if explain:
        _print_recipe(chosen)
        return
    folder = output or Path("runs") / chosen.name
    from pretrain.session import Surroundings

    around = Surroundings(
        data_dir=data_dir,
        workers=workers,
        device=device,
        command=_command(recipe, flags, overrides),
        wait=wait,
    )
    if estimated:
        from pretrain.estimate import estimate

        for one in estimate(chosen, around):
            for line in one.lines():
                click.echo(line)
        return
    _train(chosen, folder, around, quiet=quiet)


def assemble(
    source: str | None, flags: dict[str, Any], overrides: tuple[str, ...]
) -> Recipe:
    """Recipe file, then flags, then -o; validated."""
    from pretrain.recipe import load_recipe, merge, parse_override, validate

    content: dict[str, Any] = load_recipe(source) if source else {}
    given = {key: value for key, value in flags.items() if value is not None}
    norm, eps = given.pop("norm", None), given.pop("eps", None)
    if (normalize := given.pop("normalize", None)) is not None:
        given["init"] = {"normalize": normalize} | (
            {"model": given["init"]} if "init" in given else {}
        )
    if norm is not None or eps is not None:
        given["threat"] = _threat(norm, eps, content.get("threat") or {})
    content = merge(content, given)
    for text in overrides:
        content = merge(content, parse_override(text))
    if content.get("init") is not None and not source:
        content = _fine_tuning(content)
    if not source:
        content.setdefault("draws", "image")
    if "method" not in content:
        raise UserError("name a recipe or a --method; --list shows them")
    content.setdefault("name", _default_name(content))
    if "epochs" not in content and "passes" not in content:
        content["epochs"] = 100
    return validate(content)


def _fine_tuning(content: dict[str, Any]) -> dict[str, Any]:
    """Settings for an encoder that exists, where nothing else is said."""
    from pretrain.recipe import FINE_TUNING, merge
    from zoo.threat import parse_eps

    usual, eps = FINE_TUNING, (content.get("threat") or {}).get("eps")
    if eps is not None and not content.get("attack"):
        usual = merge(usual, {"attack": {"step_size": parse_eps(eps) / 4}})
    return merge(usual, content)


def _threat(norm: str | None, eps: str | None, base: dict[str, Any]) -> dict[str, Any]:
    from zoo.threat import parse_eps, parse_norm

    threat = {"norm": "Linf", **base}
    if norm is not None:
        threat["norm"] = parse_norm(norm)
    if eps is not None:
        threat["eps"] = parse_eps(eps)
    if "eps" not in threat:
        raise UserError("a threat model needs a radius: --eps 8/255")
    return threat


def _default_name(content: dict[str, Any]) -> str:
    """Method and dataset, in the letters that names are made of."""
    method = str(content["method"]).replace("++", "-pp")
    data = str(content.get("data", "digits"))
    if data.startswith(OWN):  # the last part of a path, which may end in a slash
        data = recorded_name(data).partition(":")[2]
    last = content.get("dataset_name") or Path(data).name
    text = f"{method}-{last}".lower()
    return re.sub(r"[^a-z0-9._-]+", "-", text)[:LONGEST]


def _train(recipe: Recipe, folder: Path, around: Surroundings, *, quiet: bool) -> None:
    from pretrain import distributed
    from pretrain.train import train

    chosen = distributed.device(around.device)
    with distributed.process_group(chosen), ExitStack() as stack:
        report = _reporter(quiet or not distributed.leads(), stack)
        here = replace(around, device=str(chosen), report=report)
        result = train(recipe, folder, here)
        if distributed.leads():
            click.echo(str(result))


def _reporter(silent: bool, stack: ExitStack) -> Reporter:
    from pretrain.progress import Lines, Live, Silent

    if silent:
        return Silent()
    return stack.enter_context(Live()) if sys.stderr.isatty() else Lines()


def _command(
    source: str | None, flags: dict[str, Any], overrides: tuple[str, ...]
) -> str:
    """The command that reproduces the run, without what is only local."""
    import shlex

    words = ["robrep-pretrain", *([source] if source else [])]
    for key, value in flags.items():
        if value is not None:
            words += [f"--{key.replace('_', '-')}", str(value)]
    for text in overrides:
        words += ["-o", text]
    return shlex.join(recorded_command(words))


def _print_recipe(recipe: Recipe) -> None:
    from pretrain import methods
    from pretrain.recipe import dump

    full = recipe.model_copy(
        update={"options": methods.options(recipe).model_dump(mode="json")}
    )
    click.echo(dump(full), nl=False)


def _print_list() -> None:
    from pretrain import methods
    from pretrain.recipe import built_in

    click.echo("methods: " + ", ".join(sorted(methods.registry())))
    click.echo("recipes: " + ", ".join(built_in()))


def _recipe_names() -> list[str]:
    from pretrain.recipe import built_in

    return built_in()


def main() -> None:
    """Entry point of robrep-pretrain."""
    run(command, "robrep-pretrain")
