"""The command `robrep-eval`. Imports no torch until a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from robrep_eval.commands.config import OnceCommand, Words, read_config, typed
from robrep_eval.measures.registry import options as measurements
from robrep_eval.report.command import report
from zoo._version import __version__
from zoo.commands.numbers import DECIMAL, WHOLE
from zoo.commands.shell import DefaultGroup
from zoo.commands.shell import run as run_command
from zoo.errors import RobrepError, UserError

if TYPE_CHECKING:
    from robrep_eval.commands.display import LiveProgress
    from robrep_eval.run.plan import Request
    from robrep_eval.run.summary import Summary
    from zoo.records import Result

EPILOG = """
Examples:

  robrep-eval --model zoo:tarrl-digits

  robrep-eval --model zoo:tarrl-digits --eps 0.05 --attacks standard,pgd --limit 100

  robrep-eval --model zoo:tarrl-digits --probe alf --labels 10% --battery quick

  robrep-eval --model a.safetensors,b.safetensors --dataset cifar10,cifar100 \
      --eps 4/255,8/255 --output study

  robrep-eval --config eval.yaml --summary table.tex

  robrep-eval --model model_test.pt --arch resnet18 --dataset cifar10 --eps 8/255

  robrep-eval verify runs/tarrl-digits/digits-linf-0.1
"""


@click.group(
    cls=DefaultGroup,
    default="run",
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "ROBREP",
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
@click.version_option(__version__, prog_name="robrep-eval")
def cli() -> None:
    """Measures how robust an image encoder is, with evidence.

    Fits a linear probe on frozen features, attacks the classifier with AutoAttack,
    re-checks every adversarial, and saves a record that anyone can verify. Without a
    verb, `run` is meant.
    """


def _complete(kind: str) -> Any:
    """Shell completion from a registry, without torch."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[str]:
        return [name for name in _known(kind) if name.startswith(incomplete)]

    return complete


def _known(kind: str) -> list[str]:
    if kind == "model":
        from zoo.commands.completion import encoder_names

        return [f"zoo:{name}" for name in encoder_names(None)]
    if kind == "dataset":
        from zoo.datasets.registry import registry

        return list(registry())
    from robrep_eval.attacks.registry import known

    return known()


@cli.command(epilog=EPILOG, cls=OnceCommand)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=read_config,
    is_eager=True,
    metavar="FILE.yaml",
    help="Options by their names, as `eps: [0.05, 0.1]`; those of the command line go "
    "before them.",
)
@click.option(
    "--model",
    required=True,
    multiple=True,
    type=Words(),
    metavar="REF",
    shell_complete=_complete("model"),
    help="zoo:NAME, a .safetensors or .pt file, timm:NAME, hf://ORG/REPO or "
    "robustbench:ID. Several models, datasets, radii or probes (commas, or the option "
    "again): a run of each, and one table.",
)
@click.option(
    "--dataset",
    multiple=True,
    type=Words(),
    metavar="NAMES",
    shell_complete=_complete("dataset"),
    help="A dataset, imagefolder:PATH, imagelist:FILE.csv or hf-datasets:NAME. "
    "Default: the encoder's own.",
)
@click.option(
    "--dataset-name",
    metavar="NAME",
    help="Of images of your own in records, which hold no path. Default: the last "
    "part of PATH.",
)
@click.option(
    "--crop",
    type=WHOLE,
    metavar="SIDE",
    help="Bring images to 3xSIDExSIDE, as NAME@3xSIDExSIDE does: resized, and the "
    "middle cut out.",
)
@click.option(
    "--resize",
    type=WHOLE,
    metavar="SIDE",
    help="Shorter side before that. Default: crop / 0.875, as 256 for 224.",
)
@click.option(
    "--interpolation",
    metavar="KIND",
    help="bicubic or bilinear. Default: bicubic.",
)
@click.option(
    "--test-share",
    metavar="SHARE",
    help="Of your own images without splits: 20% of each class are test images.",
)
@click.option("--split-seed", type=WHOLE, metavar="N", help="Of that. Default: 0.")
@click.option(
    "--probe",
    default=("slf",),
    show_default="slf",
    multiple=True,
    type=Words(),
    metavar="PROTOCOL",
    help="slf: linear probe. alf: the same on adversarial images. aff: fine-tunes the "
    "encoder as well (as long as 25 epochs of adversarial training, three times).",
)
@click.option(
    "--l2",
    type=DECIMAL,
    metavar="PENALTY",
    help="Of the linear probe. Default: chosen by clean accuracy on held-out training "
    "images. A larger one leaves wider margins, and certifies more.",
)
@click.option(
    "--labels",
    metavar="AMOUNT",
    help="Labelled training images for the probe, the same number of each class: 1%, "
    "10% or a number. Default: all.",
)
@click.option("--norm", default="Linf", show_default=True, help="Linf, L2 or L1.")
@click.option(
    "--eps",
    multiple=True,
    type=Words(),
    metavar="RADIUS",
    help="For pixels in [0, 1], as 8/255 or 0.03. Default: the encoder's own.",
)
@click.option(
    "--attacks",
    "--battery",
    "attacks",
    default=("standard",),
    show_default="standard",
    multiple=True,
    metavar="LIST",
    shell_complete=_complete("attack"),
    help="Batteries (standard, fast, quick, full) and attacks, separated by commas; "
    "`robrep-eval list` names them. full adds ART's attacks, each on all images.",
)
@click.option(
    "--transfer-from",
    multiple=True,
    metavar="zoo:NAME",
    shell_complete=_complete("model"),
    help="Also try adversarials made on that encoder with a linear probe of its own. "
    "May be repeated.",
)
@click.option(
    "--audit",
    type=int,
    metavar="N",
    help="Also attack N of the images that stand, drawn by the seed, by standard: with "
    "--battery fast, robust accuracy on all images up to an exact interval.",
)
@click.option(
    "--engine",
    default="robrep",
    show_default=True,
    metavar="NAME",
    help="robrep, or reference for pyautoattack itself.",
)
@click.option(
    "--randomness",
    default="per-example",
    show_default=True,
    metavar="SOURCE",
    help="per-example: independent of batches, order and processes. official-rng: "
    "replays what AutoAttack draws for each chunk.",
)
@measurements
@click.option(
    "--limit",
    "--n-examples",
    "limit",
    type=WHOLE,
    metavar="N",
    help="Only the first N test images.",
)
@click.option("--batch-size", type=WHOLE, default=512, show_default=True, metavar="N")
@click.option(
    "--chunk-size",
    type=WHOLE,
    default=512,
    show_default=True,
    metavar="N",
    help="Images per unit of progress; recorded, as the reference's verdicts vary "
    "with it.",
)
@click.option("--seed", type=WHOLE, default=0, show_default=True, metavar="N")
@click.option(
    "--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ..."
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where a copy of the dataset lies, or is downloaded to.",
)
@click.option(
    "--arch",
    metavar="NAME",
    help="Architecture of a checkpoint file that does not say it.",
)
@click.option(
    "--arch-option",
    "arch_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the architecture, as stem_padding=2. May be repeated.",
)
@click.option(
    "--prefix",
    metavar="TEXT",
    help="Before the names of the network's weights in a checkpoint, as encoder_q. "
    "Default: found.",
)
@click.option(
    "--kind",
    metavar="KIND",
    help="Of a checkpoint: features leaves a classifier's head out, logits insists "
    "on it.",
)
@click.option(
    "--normalize",
    metavar="MEAN/STD",
    help="Of a checkpoint file: cifar10, imagenet, or .5,.5,.5/.25,.25,.25. "
    "Default: none.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Run folder; of several, the folder of their folders and of summary.json, .md "
    "and .tex. Default: runs/MODEL/DATASET-NORM-EPS.",
)
@click.option(
    "--summary",
    "summaries",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Also write the table there, as its ending says: .json, .md or .tex.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace the run in the folder; other files in it stay.",
)
@click.option(
    "--wait", is_flag=True, help="Wait for another process in the run folder."
)
@click.option(
    "--report", is_flag=True, help="Also write report.html into the run folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result, as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """Evaluates a model, or several; the same command again resumes."""
    quiet, as_json = options.pop("quiet"), options.pop("as_json")
    del options["config"]
    summaries = options.pop("summaries")
    from robrep_eval.commands.display import LiveProgress, print_result, print_summary
    from robrep_eval.run.several import read_requests
    from robrep_eval.run.shards import leading
    from zoo.records import Result

    requests = read_requests(options, typed(context, sys.argv[1:]))
    with LiveProgress(quiet=quiet or not leading()) as progress:
        found = _evaluate(requests, progress, summaries)
    if not leading():
        return
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    elif isinstance(found, Result):
        print_result(found)
    else:
        print_summary(found)
    if not isinstance(found, Result) and found.failed:
        count = len(found.rows) + len(found.failed)
        reasons = "; ".join(map(str, found.failed))
        raise RobrepError(f"{len(found.failed)} of {count} failed: {reasons}")


def _evaluate(
    requests: list[Request], progress: LiveProgress, summaries: tuple[Path, ...]
) -> Result | Summary:
    """One result, or a table where there are several or one is asked for."""
    progress.stage(
        f"loading {', '.join(dict.fromkeys(str(r.model) for r in requests))}"
    )
    from robrep_eval.run.evaluation import Callbacks, run_plan
    from robrep_eval.run.plan import prepare
    from robrep_eval.run.several import evaluate_each

    tell = Callbacks(
        progress=progress.update, stage=progress.stage, working=progress.working
    )
    if len(requests) > 1 or summaries:
        return evaluate_each(requests, tell, summaries=summaries)
    plan = prepare(requests[0])
    result = run_plan(plan, tell)
    tell.stage(f"saved in {plan.output}")
    return result


@cli.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--dataset",
    metavar="NAME",
    help="Where the evaluated images are now, if they moved (imagefolder:PATH).",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where a copy of the dataset lies.",
)
@click.option("--device", default="cpu", show_default=True)
def verify(
    result: Path, dataset: str | None, data_dir: Path | None, device: str
) -> None:
    """Re-checks a result from its saved files, with forward passes only.

    RESULT is a run folder or its result.json. Exit code 1 if a claim does not hold.
    """
    from zoo.device import check_device
    from zoo.result_file import RESULT
    from zoo.verification import verify_folder

    check_device(device)

    folder = result.parent if result.name == RESULT else result
    if not (folder / RESULT).is_file():
        raise UserError(f"no {RESULT} in {folder}")
    found = verify_folder(folder, dataset=dataset, data_dir=data_dir, device=device)
    for finding in found:
        click.echo(f"ok  {finding.check}: {finding.detail}")


@cli.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the record instead.")
def compare_(a: Path, b: Path, as_json: bool) -> None:
    """Compares two results on the images they share: exact McNemar tests.

    A and B are run folders or their result.json.
    """
    from robrep_eval.commands.display import print_comparison
    from robrep_eval.compare import compare_files

    found = compare_files(a, b)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        print_comparison(found)


@cli.command("list")
def list_() -> None:
    """Names attacks, datasets, architectures and zoo encoders."""
    from rich.console import Console
    from rich.table import Table

    from robrep_eval.attacks.registry import registry as attacks
    from zoo.architectures import registry as architectures
    from zoo.datasets.registry import registry as datasets

    table = Table(box=None, pad_edge=False)
    table.add_column("kind", style="dim")
    table.add_column("name", style="bold")
    table.add_column("")
    rows = [
        *(("attacks", row.name, row.summary) for row in attacks().values()),
        *(("dataset", row.name, row.summary) for row in datasets().values()),
        *_encoders(),
        *(("arch", row.name, row.summary) for row in architectures().values()),
    ]
    for row in rows:
        table.add_row(*row)
    # Text of cards is printed as it is, never read as markup.
    width = None if sys.stdout.isatty() else 110
    Console(width=width, markup=False, highlight=False).print(table)


def _encoders() -> list[tuple[str, str, str]]:
    """Rows of the zoo; if it cannot be reached, a note instead: the rest is here."""
    from zoo.collection.store import cards
    from zoo.errors import RobrepError
    from zoo.plain_text import plain, plain_line

    try:
        found = cards()
    except RobrepError as error:
        click.echo(
            f"the encoders of the zoo are left out: {plain_line(str(error))}", err=True
        )
        return []
    return [("model", f"zoo:{card.name}", plain(card.description)) for card in found]


cli.add_command(report)


def main() -> None:
    """Entry point of the command `robrep-eval`."""
    run_command(cli, "robrep-eval")
