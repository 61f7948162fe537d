"""The command `robrep-eval report`. Imports no torch until it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

EPILOG = """
Examples:

  robrep-eval report runs/tarrl-digits/digits-linf-0.1

  robrep-eval report RUN --output report.html

  robrep-eval report runs/a runs/b runs/c --output overview.html

  robrep-eval report RUN --dataset imagefolder:/where/the/images/are/now
"""


@click.command("report", epilog=EPILOG)
@click.argument(
    "runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path)
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Default: RUN/report.html; of several runs, overview.html.",
)
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
def report(runs: tuple[Path, ...], **options: Any) -> None:
    """Shows a run as one HTML file: figures, images, checks, provenance.

    RUN is a run folder or its result.json; several are shown side by side on one page,
    from their records alone. Nothing is attacked anew; without images or weights the
    page says what is missing.
    """
    from robrep_eval.report import write_overview, write_report
    from robrep_eval.report.material import finished_folder
    from zoo.device import check_device

    for run in runs:  # before torch looks at devices
        finished_folder(run)
    if len(runs) > 1:
        click.echo(write_overview(runs, options["output"] or Path("overview.html")))
        return
    check_device(options["device"])
    click.echo(write_report(runs[0], **options))
