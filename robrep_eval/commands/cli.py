"""The command `robrep-eval`. Imports no torch until a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from robrep_eval.commands.config import OnceCommand, typed
from robrep_eval.commands.run_options import run_options
from robrep_eval.report.command import report
from zoo._version import __version__
from zoo.commands.shell import DefaultGroup
from zoo.commands.shell import run as run_command
from zoo.errors import RobrepError, UserError
from zoo.plain_text import plain

if TYPE_CHECKING:
    from robrep_eval.commands.display import LiveProgress
    from robrep_eval.run.request import Request
    from robrep_eval.run.summary import Summary
    from zoo.records import Result
    from zoo.suites.suite import Suite

EPILOG = """
Examples:

  robrep-eval --model zoo:tarrl-digits

  robrep-eval --model zoo:tarrl-digits --eps 0.05 --attacks standard,pgd --limit 100

  robrep-eval --model zoo:tarrl-digits --probe alf --labels 10% --battery quick

  robrep-eval --model a.safetensors,b.safetensors --dataset cifar10,cifar100 \
--eps 4/255,8/255 --output study

  robrep-eval --suite digits --model zoo:tarrl-digits --battery quick

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


@cli.command(epilog=EPILOG, cls=OnceCommand)
@run_options
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """Evaluates a model, or several; the same command again resumes."""
    quiet, as_json = options.pop("quiet"), options.pop("as_json")
    del options["config"]
    summaries, estimated = options.pop("summaries"), options.pop("estimated")
    from robrep_eval.commands.display import LiveProgress, print_result, print_summary
    from robrep_eval.run.several import read_requests
    from zoo.processes import leading
    from zoo.records import Result

    command = typed(context, sys.argv[1:])
    if name := options.pop("suite"):
        if summaries:
            raise UserError(
                "--summary is for lists of datasets; a suite's tables are suite.json "
                "and suite.md in the folder of --output"
            )
        suite, requests = _suite(name, options, command)
        if estimated:
            _estimate(requests)
        else:
            _run_suite(suite, requests, quiet=quiet, as_json=as_json)
        return
    requests = read_requests(options, command)
    if estimated:
        _estimate(requests)
        return
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


def _suite(
    name: str, options: dict[str, Any], command: list[str]
) -> tuple[Suite, list[Request]]:
    """The suite of that name and what it asks for."""
    from robrep_eval.run.several import split_values
    from robrep_eval.run.suite_requests import suite_requests
    from zoo.suites.suite import load_suite

    suite = load_suite(name)
    models = split_values("model", options["model"])
    probes = split_values("probe", options["probe"])
    chosen = {**options, "model": models, "probe": probes}
    return suite, suite_requests(suite, chosen, command)


def _run_suite(
    suite: Suite, requests: list[Request], *, quiet: bool, as_json: bool
) -> None:
    """All tasks of a suite, and the table of it."""
    from robrep_eval.commands.display import LiveProgress
    from robrep_eval.run.callbacks import Callbacks
    from robrep_eval.run.suite_evaluation import run_suite
    from zoo.processes import leading

    with LiveProgress(quiet=quiet or not leading()) as progress:
        tell = Callbacks(
            progress=progress.update,
            stage=progress.stage,
            working=progress.working,
            saved=progress.saved,
        )
        found = run_suite(suite, requests, tell)
    if not leading():
        return
    click.echo(found.model_dump_json(indent=2) if as_json else plain(found.to_text()))
    if found.failed:
        reasons = "; ".join(map(str, found.failed))
        raise RobrepError(f"{len(found.failed)} of {len(requests)} failed: {reasons}")


def _estimate(requests: list[Request]) -> None:
    """Prints what each evaluation would cost."""
    from robrep_eval.run.estimate import estimate
    from robrep_eval.run.plan import prepare

    for request in requests:
        plan = prepare(request)
        click.echo(f"{request.model} on {plan.data.name}, {plan.threat}:")
        for line in estimate(plan).lines():
            click.echo(f"  {line}")


def _evaluate(
    requests: list[Request], progress: LiveProgress, summaries: tuple[Path, ...]
) -> Result | Summary:
    """One result, or a table where there are several or one is asked for."""
    progress.stage(
        f"loading {', '.join(dict.fromkeys(str(r.model) for r in requests))}"
    )
    from robrep_eval.run.callbacks import Callbacks
    from robrep_eval.run.evaluation import run_plan
    from robrep_eval.run.plan import prepare
    from robrep_eval.run.several import evaluate_each

    tell = Callbacks(
        progress=progress.update,
        stage=progress.stage,
        working=progress.working,
        saved=progress.saved,
    )
    if len(requests) > 1 or summaries:
        return evaluate_each(requests, tell, summaries=summaries)
    plan = prepare(requests[0])
    result = run_plan(plan, tell)
    tell.saved(f"saved in {plan.output}")
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
    Several processes share the passes: torchrun --nproc-per-node 2 -m robrep_eval
    verify RESULT.
    """
    from zoo.device import check_device
    from zoo.processes import Company
    from zoo.result_file import RESULT
    from zoo.verification import verify_folder

    check_device(device)

    folder = result.parent if result.name == RESULT else result
    if not (folder / RESULT).is_file():
        raise UserError(f"no {RESULT} in {folder}")
    company = Company.from_environment("verify")
    with company.parting():
        found = company.agreed(
            lambda: verify_folder(
                folder,
                dataset=dataset,
                data_dir=data_dir,
                device=device,
                company=company,
            )
        )
    for finding in found if company.leads else ():
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
    from zoo.collection.opening import open_source
    from zoo.collection.store import cards
    from zoo.errors import RobrepError
    from zoo.plain_text import plain, plain_line

    try:
        source = open_source()
        found = cards(source)
    except RobrepError as error:
        click.echo(
            f"the encoders of the zoo are left out: {plain_line(str(error))}", err=True
        )
        return []
    for name, reason in source.left_out.items():
        click.echo(f"zoo:{name} is left out: {plain_line(reason)}", err=True)
    return [("model", f"zoo:{card.name}", plain(card.description)) for card in found]


cli.add_command(report)


def main() -> None:
    """Entry point of the command `robrep-eval`."""
    run_command(cli, "robrep-eval")
