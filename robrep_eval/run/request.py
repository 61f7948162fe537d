"""What an evaluation is asked for, and how words of the command become that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from robrep_eval.measures.base import Measurement
from robrep_eval.measures.registry import read_options, usual
from robrep_eval.probes.linear import PENALTIES, ProbeSettings
from robrep_eval.run.chunk import BatterySettings
from zoo import yaml_text
from zoo.datasets.base import Dataset
from zoo.datasets.workers import check_workers
from zoo.device import check_device
from zoo.errors import UserError, nearest
from zoo.numerals import decimal
from zoo.plain_text import recorded_command

LARGEST = 2**31 - 1
"""Of seeds and sizes: torch and numpy take no more."""
NORMALIZATIONS = {
    "none": ((0.0,), (1.0,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to evaluate; every field has the default that the command has."""

    model: str | nn.Module
    """A reference, or a module at hand."""
    dataset: str | Dataset | None = None
    """By default the dataset that the encoder was trained on. A `Dataset` of your own
    needs `train` as well unless the model is a ready-made classifier."""
    dataset_name: str | None = None
    """In records, for imagefolder:PATH; by default the last part of PATH."""
    train: Dataset | None = None
    kind: str | None = None
    """Of a module at hand or a checkpoint: "features" or "logits"."""
    norm: str = "Linf"
    eps: float | str | None = None
    """By default the encoder's own threat model, else the dataset's usual radius."""
    attacks: str = "standard"
    engine: str = "robrep"
    """ "reference" runs pyautoattack instead of robrep's own engine."""
    randomness: str = "per-example"
    """ "official-rng" replays the reference's draws on robrep's engine."""
    limit: int | None = None
    """First n test images; all by default."""
    stratified: bool = False
    """Those n: as many of each class, instead."""
    settings: BatterySettings = field(default_factory=BatterySettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    measure: tuple[Measurement[Any], ...] = field(default_factory=usual)
    """Beside the attacks; by default health checks, eps curve and estimated bound."""
    data_dir: Path | None = None
    workers: int = 0
    """Processes that decode images; 0: none but the one that computes."""
    skip_broken: int = 0
    """Images of each split that may be left out because they cannot be read."""
    features: Path | None = None
    """Folder that features are kept in, for other runs too."""
    arch: str | None = None
    arch_options: tuple[tuple[str, object], ...] = ()
    prefix: str | None = None
    """Before the names of the network's weights in a checkpoint; found by default."""
    mean: tuple[float, ...] | None = None
    """Of a module at hand or a checkpoint; None: not said, nothing is subtracted."""
    std: tuple[float, ...] | None = None
    output: Path | Literal["auto"] | None = None
    """Run folder; "auto" derives one from the request, None keeps nothing but the
    returned result."""
    overwrite: bool = False
    wait: bool = False
    """For another process that uses the run folder; otherwise that is an error."""
    report: bool = False
    """Also writes report.html into the run folder."""
    command: tuple[str, ...] = ()


def read_request(options: dict[str, Any], command: Sequence[str]) -> Request:
    """Reads what `robrep-eval run` was given.

    Args:
        options: Values by parameter name.
        command: The words as typed, for the record.

    Raises:
        UserError: a value that makes no sense, with the nearest that would.
    """
    for key in ("limit", "batch_size", "chunk_size"):
        if options[key] is not None and options[key] < 1:
            flag = key.replace("_", "-")
            raise UserError(f"--{flag} must be at least 1, not {options[key]}")
        if options[key] is not None and options[key] > LARGEST:
            flag = key.replace("_", "-")
            raise UserError(f"--{flag} must be at most {LARGEST}, not {options[key]}")
    if not 0 <= options["seed"] <= LARGEST:
        raise UserError(f"--seed must be 0 to {LARGEST}, not {options['seed']}")
    check_device(options["device"])
    check_workers(options["workers"])
    if options["skip_broken"] < 0:
        raise UserError(
            f"--skip-broken must be zero or more, not {options['skip_broken']}"
        )
    mean, std = None, None
    if options["normalize"] is not None:
        mean, std = read_normalization(options["normalize"])
    return Request(
        model=options["model"],
        dataset=options["dataset"],
        dataset_name=options["dataset_name"],
        norm=options["norm"],
        eps=options["eps"],
        attacks=_attacks(options),
        engine=options["engine"].lower(),
        randomness=options["randomness"].lower(),
        limit=options["limit"],
        stratified=options["stratified"],
        settings=BatterySettings(
            seed=options["seed"],
            chunk_size=options["chunk_size"],
            batch_size=options["batch_size"],
            device=options["device"],
        ),
        probe=ProbeSettings(
            protocol=options["probe"].upper(),
            labels=options["labels"],
            penalties=PENALTIES if options["l2"] is None else (options["l2"],),
            features=options["feature_format"],
        ),
        measure=read_options(options),
        data_dir=options["data_dir"],
        workers=options["workers"],
        skip_broken=options["skip_broken"],
        features=options["features"],
        arch=options["arch"],
        arch_options=tuple(read_pair(text) for text in options["arch_options"]),
        prefix=options["prefix"],
        kind=options["kind"],
        mean=mean,
        std=std,
        output=options["output"] or "auto",
        overwrite=options["overwrite"],
        wait=options["wait"],
        report=options["report"],
        command=("robrep-eval", *recorded_command(command)),
    )


def _attacks(options: dict[str, Any]) -> str:
    """All that --battery, --attacks, --transfer-from and --audit name, in that
    order."""
    if options["audit"] is not None and options["audit"] < 1:
        raise UserError(f"--audit must be at least 1, not {options['audit']}")
    named = [*options["attacks"], *map("transfer:{}".format, options["transfer_from"])]
    named += [] if options["audit"] is None else [f"audit:{options['audit']}"]
    return ",".join(named).lower()


def read_pair(text: str) -> tuple[str, object]:
    """ "key=value", the value as YAML: numbers, lists, true and false."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"'{text}' is not KEY=VALUE, such as stem_padding=2")
    return key, yaml_text.parse(value, f"option {key}")


def read_normalization(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A known name, or "mean,mean,mean/std,std,std"."""
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    try:
        mean, std = (tuple(map(decimal, part.split(","))) for part in text.split("/"))
    except ValueError:
        raise UserError(
            f"--normalize '{text}' is not MEAN/STD; {nearest(text, NORMALIZATIONS)}"
        ) from None
    if not all(0 <= m <= 1 for m in mean) or not all(1e-6 <= s <= 1e6 for s in std):
        raise UserError(
            f"--normalize '{text}': means lie in [0, 1], deviations above 0, for "
            "pixels in [0, 1]"
        )
    return mean, std
