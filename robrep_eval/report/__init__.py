"""A run as one HTML file that people look at: no network, nothing attacked anew.

record and files -> `material` -> what the adversarials look like now (`seen`) ->
figures (`bars`, `curves`, `displacement`, `feature_map`, `gallery`, `classes`) ->
`contents` -> template. Figures of the record are shown as they stand there; what is
added needs forward passes only and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError
from zoo.threads import fitting_threads

if TYPE_CHECKING:
    from torch import nn

    from zoo.datasets.base import Dataset

__all__ = ["write_overview", "write_report"]

PAGES = Path(__file__).parent / "pages"


@fitting_threads()
def write_report(
    run: Path,
    output: Path | None = None,
    *,
    dataset: str | Dataset | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    model: nn.Module | None = None,
) -> Path:
    """Writes the report of a finished run and returns its path.

    Args:
        run: The run folder, or its result.json.
        output: The file; by default report.html in the run folder.
        dataset: The evaluated images, or where they are now if not under the recorded
            name (`imagefolder:PATH`).
        data_dir: Where a copy of the dataset lies.
        device: Where the classifier is to run.
        model: The module, if the run is about one of the user's own.

    Raises:
        UserError: no finished run, a record that cannot be read, a file that cannot be
            written, or one that is there and is no page of robrep's.
    """
    from robrep_eval.report.contents import contents
    from robrep_eval.report.material import finished_folder, gather
    from robrep_eval.run.run_folder import REPORT
    from zoo.pages.html_page import render

    folder = finished_folder(run)
    path = _file(output or folder / REPORT)
    material = gather(
        folder, dataset=dataset, data_dir=data_dir, device=device, model=model
    )
    page = render(
        "report.html.j2",
        folder=PAGES,
        styles=["report.css"],
        images=True,
        title=f"Robustness of {material.result.model.reference}",
        it=contents(material, device=device),
        result=material.result,
        measured=material.measured,
    )
    return _write(path, page)


def write_overview(runs: Sequence[Path], output: Path) -> Path:
    """Writes one page about several finished runs, from their records alone.

    Args:
        runs: Run folders, or their result.json, in the order to show them in.
        output: The file.

    Raises:
        UserError: as `write_report`.
    """
    from robrep_eval.report.overview import overview
    from zoo.pages.html_page import render

    path = _file(output)
    found = overview(runs)
    page = render(
        "overview.html.j2",
        folder=PAGES,
        styles=["report.css"],
        title=f"Robustness in {len(runs)} runs",
        it=found,
    )
    return _write(path, page)


def _file(path: Path) -> Path:
    """The path, unless it is a folder."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file with --output")
    return path


def _write(path: Path, page: str) -> Path:
    from zoo.pages.html_page import write_page

    try:
        write_page(path, page)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; name another file with --output"
        ) from None
    return path
