"""The options of `robrep-eval run`, in the order of its help. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich_click as click

from robrep_eval.commands.config import Words, read_config
from robrep_eval.measures.registry import options as measurements
from zoo.commands.numbers import DECIMAL, WHOLE


def _complete(kind: str) -> Any:
    """Shell completion from a registry, without torch."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[str]:
        return [name for name in known_names(kind) if name.startswith(incomplete)]

    return complete


def known_names(kind: str) -> list[str]:
    """What a "model", "dataset" or "attack" may be called, for completion."""
    if kind == "model":
        from zoo.commands.completion import encoder_names

        return [f"zoo:{name}" for name in encoder_names(None)]
    if kind == "suite":
        from zoo.suites import names

        return names()
    if kind == "dataset":
        from zoo.datasets.registry import registry

        return list(registry())
    from robrep_eval.attacks.registry import known

    return known()


OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=read_config,
        is_eager=True,
        metavar="FILE.yaml",
        help="Options by their names, as `eps: [0.05, 0.1]`; those of the command line "
        "go before them.",
    ),
    click.option(
        "--model",
        required=True,
        multiple=True,
        type=Words(),
        metavar="REF",
        shell_complete=_complete("model"),
        help="zoo:NAME, a .safetensors or .pt file, timm:NAME, hf://ORG/REPO or "
        "robustbench:ID. Several models, datasets, radii or probes (commas, or the "
        "option again): a run of each, and one table.",
    ),
    click.option(
        "--suite",
        metavar="NAME",
        shell_complete=_complete("suite"),
        help="All downstream tasks of a suite in place of a dataset: digits, "
        "fashion-mnist, cifar10-jpeg or FILE.yaml; mean and worst, with intervals.",
    ),
    click.option(
        "--dataset",
        multiple=True,
        type=Words(),
        metavar="NAMES",
        shell_complete=_complete("dataset"),
        help="A dataset, imagefolder:PATH, imagelist:FILE.csv or hf-datasets:NAME. "
        "Default: the encoder's own.",
    ),
    click.option(
        "--dataset-name",
        metavar="NAME",
        help="Of images of your own in records, which hold no path. Default: the last "
        "part of PATH.",
    ),
    click.option(
        "--crop",
        type=WHOLE,
        metavar="SIDE",
        help="Bring images to 3xSIDExSIDE, as NAME@3xSIDExSIDE does: resized, and the "
        "middle cut out.",
    ),
    click.option(
        "--resize",
        type=WHOLE,
        metavar="SIDE",
        help="Shorter side before that. Default: crop / 0.875, as 256 for 224.",
    ),
    click.option(
        "--interpolation",
        metavar="KIND",
        help="bicubic or bilinear. Default: bicubic.",
    ),
    click.option(
        "--test-share",
        metavar="SHARE",
        help="Of your own images without splits: 20% of each class are test images.",
    ),
    click.option("--split-seed", type=WHOLE, metavar="N", help="Of that. Default: 0."),
    click.option(
        "--probe",
        default=("slf",),
        show_default="slf",
        multiple=True,
        type=Words(),
        metavar="PROTOCOL",
        help="slf: linear probe. slf-r: the same, its penalty chosen under attack. "
        "alf: the head is trained on adversarial images. aff: fine-tunes "
        "the encoder as well (as long as 25 epochs of adversarial training, three "
        "times).",
    ),
    click.option(
        "--l2",
        type=DECIMAL,
        metavar="PENALTY",
        help="Of the linear probe. Default: chosen on held-out training images "
        "(slf: clean accuracy). A larger one leaves wider margins, and certifies more.",
    ),
    click.option(
        "--labels",
        metavar="AMOUNT",
        help="Labelled training images for the probe, the same number of each class: "
        "1%, 10% or a number. Default: all.",
    ),
    click.option("--norm", default="Linf", show_default=True, help="Linf, L2 or L1."),
    click.option(
        "--eps",
        multiple=True,
        type=Words(),
        metavar="RADIUS",
        help="For pixels in [0, 1], as 8/255 or 0.03. Default: the encoder's own.",
    ),
    click.option(
        "--attacks",
        "--battery",
        "attacks",
        default=("standard",),
        show_default="standard",
        multiple=True,
        metavar="LIST",
        shell_complete=_complete("attack"),
        help="Batteries (standard, fast, quick, full) and attacks, separated by "
        "commas; `robrep-eval list` names them. full adds ART's attacks, "
        "each on all images.",
    ),
    click.option(
        "--transfer-from",
        multiple=True,
        metavar="zoo:NAME",
        shell_complete=_complete("model"),
        help="Also try adversarials made on that encoder with a linear probe of its "
        "own. May be repeated.",
    ),
    click.option(
        "--audit",
        type=int,
        metavar="N",
        help="Also attack N of the images that stand, drawn by the seed, by standard: "
        "with --battery fast, robust accuracy on all images up to an exact interval.",
    ),
    click.option(
        "--engine",
        default="robrep",
        show_default=True,
        metavar="NAME",
        help="robrep, or reference for pyautoattack itself.",
    ),
    click.option(
        "--randomness",
        default="per-example",
        show_default=True,
        metavar="SOURCE",
        help="per-example: independent of batches, order and processes. official-rng: "
        "replays what AutoAttack draws for each chunk.",
    ),
    measurements,
    click.option(
        "--limit",
        "--n-examples",
        "limit",
        type=WHOLE,
        metavar="N",
        help="Only the first N test images.",
    ),
    click.option(
        "--stratified",
        is_flag=True,
        help="With --limit: the first images of each class, as many of one as of "
        "another. A selection, which leaderboards do not compare.",
    ),
    click.option(
        "--batch-size", type=WHOLE, default=512, show_default=True, metavar="N"
    ),
    click.option(
        "--chunk-size",
        type=WHOLE,
        default=512,
        show_default=True,
        metavar="N",
        help="Images per unit of progress; recorded, as the reference's verdicts vary "
        "with it.",
    ),
    click.option("--seed", type=WHOLE, default=0, show_default=True, metavar="N"),
    click.option(
        "--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ..."
    ),
    click.option(
        "--workers",
        type=WHOLE,
        default=0,
        show_default=True,
        metavar="N",
        help="Processes that read and decode images while the network computes; none "
        "changes a figure.",
    ),
    click.option(
        "--skip-broken",
        type=WHOLE,
        default=0,
        show_default=True,
        metavar="N",
        help="Leave out up to N images of each split that cannot be decoded; the "
        "record counts them. Reads every image first.",
    ),
    click.option(
        "--features",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="Keep features there, for other probes, penalties, labels and runs. "
        "Default: in memory, or, beyond 1 GiB, in the run folder while it is fitted.",
    ),
    click.option(
        "--feature-format",
        default="float32",
        show_default=True,
        metavar="FORMAT",
        help="float32, or float16 for half the disk and memory; recorded.",
    ),
    click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where a copy of the dataset lies, or is downloaded to.",
    ),
    click.option(
        "--arch",
        metavar="NAME",
        help="Architecture of a checkpoint file that does not say it.",
    ),
    click.option(
        "--arch-option",
        "arch_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Option of the architecture, as stem_padding=2. May be repeated.",
    ),
    click.option(
        "--prefix",
        metavar="TEXT",
        help="Before the names of the network's weights in a checkpoint, as encoder_q. "
        "Default: found.",
    ),
    click.option(
        "--kind",
        metavar="KIND",
        help="Of a checkpoint: features leaves a classifier's head out, logits insists "
        "on it.",
    ),
    click.option(
        "--normalize",
        metavar="MEAN/STD",
        help="Of a checkpoint file: cifar10, imagenet, or .5,.5,.5/.25,.25,.25. "
        "Default: none.",
    ),
    click.option(
        "--output",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Run folder; of several, the folder of their folders and of summary.json, "
        ".md and .tex. Default: runs/MODEL/DATASET-NORM-EPS.",
    ),
    click.option(
        "--summary",
        "summaries",
        type=click.Path(dir_okay=False, path_type=Path),
        multiple=True,
        metavar="FILE",
        help="Also write the table there, as its ending says: .json, .md or .tex.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace the run in the folder; other files in it stay.",
    ),
    click.option(
        "--wait", is_flag=True, help="Wait for another process in the run folder."
    ),
    click.option(
        "--report", is_flag=True, help="Also write report.html into the run folder."
    ),
    click.option(
        "--estimate",
        "estimated",
        is_flag=True,
        help="Time a few passes, print what the run would cost at most, and stop.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result, as JSON."),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        help="No progress on stderr, only where results were saved.",
    ),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a click command all of `OPTIONS`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
