"""The options of an evaluation, by the names that the command gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypedDict

from robrep_eval.measures.base import Measurement
from robrep_eval.measures.registry import default_options, read_options
from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.run.chunk import BatterySettings
from zoo import datasets
from zoo.datasets.base import Dataset
from zoo.datasets.foreign import as_datasets
from zoo.datasets.names import OPTIONS as NAMING
from zoo.datasets.names import with_options
from zoo.errors import UserError, nearest


class FitOptions(TypedDict, total=False):
    """How a probe of any protocol is fitted; see `ProbeSettings`."""

    labels: str | int | None
    """Labelled training images, as "10%" or 500; all by default."""
    l2: float | None
    """Penalty of the linear probe; chosen on held-out images by default."""
    feature_format: str
    """ "float32" or "float16", in which features are kept."""


class ProbeOptions(FitOptions, total=False):
    """A probe."""

    probe: str | ProbeSettings
    """ "slf", "slf-r", "alf" or "aff"."""


class RunOptions(TypedDict, total=False):
    """How a battery is run; see `BatterySettings`."""

    settings: BatterySettings
    seed: int
    chunk_size: int
    batch_size: int
    device: str


class MeasureOptions(TypedDict, total=False):
    """What is measured beside the attacks; `measure` stands in place of the others."""

    measure: Sequence[Measurement[Any]]
    health: str
    """ "none", "default" or "full"."""
    certify: str | Sequence[str]
    """ "smoothing", "lipschitz" or both."""
    sigma: float
    samples: int
    bound: bool
    """Whether the bound is estimated; true by default."""
    label_free: bool
    feature_metric: str
    """Of both: "plain" (usual) or "whitened"."""
    corruptions: str | None


class SharedOptions(FitOptions, RunOptions, MeasureOptions, total=False):
    """Options of which `evaluate_all` takes one value for all evaluations."""

    kind: str | None
    """What a module gives, "features" or "logits"; by default an output of another
    width than the number of classes is features."""
    name: str
    """Of images that have none, for the record; "own" by default."""
    dataset_name: str | None
    """Of an image folder, for the record; by default the last part of its path."""
    classes: int | Sequence[str] | None
    """Of such images: names or number, by default what the data say."""
    resize: int | None
    """Pixels of the shorter side of images before the middle is cut out."""
    crop: int | None
    """Side of that middle, as NAME@3xCROPxCROP says it."""
    interpolation: str | None
    """ "bicubic" (usual) or "bilinear"."""
    test_share: float | str | None
    """Of an image folder or list without splits: 0.2 or "20%"."""
    split_seed: int | None
    """Of that choice; 0 by default."""
    norm: str
    """ "Linf", "L2" or "L1"."""
    attacks: str | Sequence[str]
    """Batteries and attacks, as "standard,pgd" or ["apgd-ce"]."""
    transfer_from: str | Sequence[str]
    audit: int | None
    """Images, of those that the attacks left, that `standard` attacks as well."""
    engine: str
    randomness: str
    limit: int | None
    stratified: bool
    """With `limit`: as many images of each class."""
    data_dir: str | Path | None
    workers: int
    """Processes that decode images; none by default."""
    skip_broken: int
    """Images of each split that may be left out because they cannot be read."""
    features: str | Path | None
    """Folder that features are kept in, for other probes and runs too."""
    arch: str | None
    arch_options: Mapping[str, object] | Sequence[tuple[str, object]]
    prefix: str | None
    """Before the names of the network's weights in a checkpoint; found by default."""
    normalize: str | None
    """ "cifar10", "imagenet" or "MEAN/STD", in place of `mean` and `std`."""
    mean: float | Sequence[float] | None
    """Subtracted per channel before a module of yours, or of a checkpoint; by default
    nothing is: the module normalises by itself."""
    std: float | Sequence[float] | None
    output: str | Path | None
    """Run folder; "auto" derives one, None keeps nothing but the result."""
    overwrite: bool
    wait: bool
    """For another process that is at work in the run folder, instead of refusing."""
    report: bool
    command: Sequence[str]


class Options(SharedOptions, ProbeOptions, total=False):
    """All options of `evaluate` beside the model and its data."""

    eps: float | str | None
    """Radius for pixels in [0, 1], as 0.03 or "8/255"."""


def check_names(options: Mapping[str, Any], kind: type) -> None:
    """Raises `UserError` for an option that is none of `kind`, with the nearest."""
    known = kind.__annotations__
    for name in options:
        if name not in known:
            raise UserError(f"there is no option '{name}'; {nearest(name, known)}")


def probe_settings(options: Mapping[str, Any]) -> ProbeSettings:
    """From `ProbeOptions` among `options`; single values go before `ProbeSettings`."""
    probe = options.get("probe", ProbeSettings())
    if isinstance(probe, str):
        probe = ProbeSettings(protocol=probe.upper())  # type: ignore[arg-type]
    if not isinstance(probe, ProbeSettings):
        raise UserError(f"probe={probe!r} is neither a name such as 'slf' nor settings")
    if options.get("labels") is not None:
        probe = replace(probe, labels=str(options["labels"]))
    if options.get("l2") is not None:
        probe = replace(probe, penalties=(options["l2"],))
    if options.get("feature_format") is not None:
        probe = replace(probe, features=options["feature_format"])
    return probe


def run_settings(options: Mapping[str, Any]) -> BatterySettings:
    """From `RunOptions` among `options`; single values go before `settings`."""
    names = ("seed", "chunk_size", "batch_size", "device")
    given = {name: options[name] for name in names if name in options}
    for name, value in given.items():
        low = {"seed": 0, "chunk_size": 1, "batch_size": 1}.get(name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if low is not None and not (whole and value >= low):
            raise UserError(
                f"{name} must be a whole number of at least {low}, not {value!r}"
            )
    settings: BatterySettings = options.get("settings", BatterySettings())
    return replace(settings, **given)


def measurements(options: Mapping[str, Any]) -> tuple[Measurement[Any], ...]:
    """From `MeasureOptions` among `options`.

    Raises:
        UserError: `measure` beside an option that it stands in place of.
    """
    known = default_options()
    asked = {name: options[name] for name in known if name in options}
    if "measure" in options:
        if asked:
            raise UserError(
                f"give either measure= or {', '.join(f'{n}=' for n in asked)}, not both"
            )
        given: tuple[Measurement[Any], ...] = options["measure"]
        return tuple(given) if isinstance(given, list) else given
    if isinstance(asked.get("certify"), str):
        asked["certify"] = asked["certify"].split(",")
    return read_options({**known, **asked})


def numbers(value: float | Sequence[float]) -> tuple[float, ...]:
    """One number, or one for each channel."""
    try:
        return tuple(float(v) for v in (value if _many(value) else [value]))  # type: ignore[union-attr, arg-type]
    except (TypeError, ValueError):
        raise UserError(f"mean and std are numbers, not {value!r}") from None


def _many(value: object) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str)


def names(value: str | Sequence[str]) -> list[str]:
    """ "a,b", ["a", "b"] or ["a,b"] as a list."""
    words = [value] if isinstance(value, str) else list(value)
    return [part.strip() for word in words for part in word.split(",")]


def request_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Request`, by its names and of its types.

    Raises:
        UserError: an unknown option, with the nearest, or a value that makes no sense.
    """
    check_names(options, Options)
    found: dict[str, Any] = {
        "settings": run_settings(options),
        "probe": probe_settings(options),
        "measure": measurements(options),
    }
    same = (
        "dataset_name",
        "kind",
        "norm",
        "eps",
        "limit",
        "stratified",
        "workers",
        "skip_broken",
        "arch",
        "prefix",
        "overwrite",
        "wait",
        "report",
    )
    found |= {name: options[name] for name in same if name in options}
    limit = options.get("limit")
    whole = isinstance(limit, Integral) and not isinstance(limit, bool)
    if limit is not None and not (whole and limit >= 1):
        raise UserError(f"limit must be a whole number of at least 1, not {limit!r}")
    for name in ("engine", "randomness"):
        if name in options:
            found[name] = options[name].lower()
    sources = [f"transfer:{name}" for name in names(options.get("transfer_from", ()))]
    last = [] if options.get("audit") is None else [f"audit:{options['audit']}"]
    found["attacks"] = ",".join(
        [*names(options.get("attacks", "standard")), *sources, *last]
    ).lower()
    for name in ("data_dir", "features"):
        if options.get(name) is not None:
            found[name] = Path(options[name])
    pairs = options.get("arch_options", ())
    found["arch_options"] = tuple(
        pairs.items() if isinstance(pairs, Mapping) else pairs
    )
    output: Path | Literal["auto"] | None = options.get("output")
    found["output"] = output if output in (None, "auto") else Path(output)
    found["command"] = tuple(options.get("command", ()))
    return found | _normalisation(options)


def named(dataset: str | None, options: Mapping[str, Any]) -> str | None:
    """A dataset's name with the options that are part of it.

    Raises:
        UserError: such an option without a name.
    """
    if dataset is not None:
        return with_options(dataset, options)
    given = [name for name in NAMING if options.get(name) is not None]
    if given:
        flag = given[0].replace("_", "-")
        raise UserError(f"name the images that --{flag} is about (--dataset)")
    return None


def own_data(
    dataset: object | None, train: object | None, options: Mapping[str, Any]
) -> tuple[str | Dataset | None, Dataset | None]:
    """Images and training images in robrep's own form; a name stays a name."""
    if dataset is None or isinstance(dataset, str):
        dataset = named(dataset, options)
    data_dir = options.get("data_dir")
    folder = None if data_dir is None else Path(data_dir)
    if isinstance(train, str):
        train = datasets.load(train, "train", data_dir=folder)
    if dataset is None or isinstance(dataset, str):
        if train is None or isinstance(train, Dataset):
            return dataset, train
        if dataset is None:
            raise UserError("name the images to evaluate on (dataset=) beside train=")
        dataset = datasets.load(dataset, "test", data_dir=folder)
    return as_datasets(
        dataset, train, name=options.get("name", "own"), classes=options.get("classes")
    )


def _normalisation(options: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    from robrep_eval.run.request import read_normalization

    given = {
        name: numbers(options[name])
        for name in ("mean", "std")
        if options.get(name) is not None
    }
    if options.get("normalize") is None:
        return given
    if given:
        raise UserError("give either normalize= or mean= and std=, not both")
    mean, std = read_normalization(options["normalize"])
    return {"mean": mean, "std": std}
