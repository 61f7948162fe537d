"""What is to be evaluated, looked up and checked before any work begins."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from robrep_eval.attacks.battery import Battery, build
from robrep_eval.measures.measure import check as check_measurements
from robrep_eval.measures.registry import ROWS
from robrep_eval.probes.few_labels import few_labels
from robrep_eval.probes.linear import check_shape
from robrep_eval.run.fits import Fits
from robrep_eval.run.identity import Identity, identify
from robrep_eval.run.images import (
    named_images,
    notes_on_own,
    training_identity,
    training_images,
    with_dataset,
)
from robrep_eval.run.model import check_ready_made, load_model
from robrep_eval.run.pixel_scale import scale_note
from robrep_eval.run.request import Request
from robrep_eval.run.run_folder import check_overwrite
from robrep_eval.run.surrogates import check_surrogates
from zoo import datasets
from zoo.collection.references import Loaded, check, weights_file
from zoo.datasets.base import Dataset
from zoo.datasets.names import split_name
from zoo.datasets.same_classes import check_same_classes
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.paths import safe_name
from zoo.processes import leading
from zoo.threat import Norm, ThreatModel, parse_eps, parse_norm


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with everything looked up and checked."""

    request: Request
    loaded: Loaded
    data: Dataset
    threat: ThreatModel
    battery: Battery
    identity: Identity
    """What makes another run the same one."""
    output: Path | None
    training: Dataset | None = None
    """What the probe is fitted on, where it was read already."""
    notes: tuple[str, ...] = ()
    """What the result is to say about what could not be done."""
    fits: Fits = field(default_factory=Fits)
    """Probes of the same command."""


def prepare(request: Request) -> Plan:
    """Checks all that can be checked before work begins.

    Raises:
        UserError: an unknown name, a radius in the wrong units, a model that does not
            fit the data.
    """
    norm, battery, eps, request = check_request(request)
    if request.stratified and request.limit is None:
        raise UserError("say how many images are to be stratified (--limit N)")
    data = named_images(request, "test")
    data = data.take(request.limit, stratified=request.stratified)
    loaded = load_model(request, data)
    threat = _threat(norm, eps, loaded, data.name)
    threat.check_units(data.shape)
    check_ready_made(request, loaded, data)
    if loaded.encoder is not None:
        check_shape(loaded.encoder, data)
        if request.train is not None:
            check_same_classes(request.train, data)
        if request.probe.labels is not None:
            train = training_images(request, data)
            few_labels(train, request.probe.labels, request.settings.seed)
    check_surrogates(battery, data)
    check_measurements(request.measure, loaded.encoder, data)
    request, notes = _with_full(request, battery, loaded.encoder, data)
    output = _output(request, data, threat)
    if request.overwrite and output is not None and leading():
        model = request.model if isinstance(request.model, str) else None
        check_overwrite(output, None if model is None else weights_file(model))
    scale = scale_note(
        loaded,
        data,
        described=request.arch is None,
        said=request.mean is not None or request.std is not None,
    )
    if scale is not None:
        loaded = replace(loaded, notes=(*loaded.notes, scale))
    training = training_identity(request, loaded, battery, data)
    identity = identify(
        loaded=loaded,
        data=data,
        train=training,
        threat=threat,
        battery=battery,
        settings=request.settings,
        probe=request.probe,
    )
    return Plan(
        request=request,
        loaded=loaded,
        data=data,
        threat=threat,
        battery=battery,
        identity=identity,
        output=output,
        training=training if isinstance(training, Dataset) else None,
        notes=(
            *loaded.notes,
            *data.notes,
            *(notes_on_own(training) if request.skip_broken else ()),
            *notes,
        ),
    )


def check_request(request: Request) -> tuple[Norm, Battery, float | None, Request]:
    """What can be checked without reading weights or images.

    Returns:
        Norm, attacks, radius if one is asked for, and the request with its dataset.

    Raises:
        UserError: a name that nothing is known by, or a radius that is none.
    """
    norm = parse_norm(request.norm)
    battery = build(
        request.attacks, request.engine, norm=norm, randomness=request.randomness
    )
    eps = None if request.eps is None else parse_eps(request.eps)
    if isinstance(request.model, str):
        check(request.model)
    request = with_dataset(request)
    name = request.dataset
    if isinstance(name, Dataset):
        name = name.name
    else:
        assert name is not None
        datasets.check(name, called=request.dataset_name)
    _, reading = split_name(name)
    row = datasets.find(name)
    shape = (reading and reading.shape) or (row and row.shape)
    if eps is not None and shape:
        ThreatModel(norm=norm, eps=eps).check_units(shape)
    return norm, battery, eps, request


def _threat(norm: Norm, eps: float | None, loaded: Loaded, dataset: str) -> ThreatModel:
    """The radius asked for, the encoder's own, or the usual one of the dataset."""
    if eps is not None:
        return ThreatModel(norm=norm, eps=eps)
    trained = loaded.training and loaded.training.threat
    if trained and trained.norm == norm:
        return trained
    row = datasets.find(dataset)
    if row is None or norm not in row.eps:
        raise UserError(f"name a radius for {norm} on '{dataset}' (--eps, as 8/255)")
    return ThreatModel(norm=norm, eps=row.eps[norm])


def _with_full(
    request: Request, battery: Battery, encoder: Encoder | None, data: Dataset
) -> tuple[Request, tuple[str, ...]]:
    """`full` brings measurements along; where one cannot be had, a note says why."""
    if "full" not in battery.name.split(","):
        return request, ()
    asked = {one.name for one in request.measure}
    more, notes = [], []
    for row in ROWS.values():
        if not row.with_full or row.name in asked:
            continue
        one = row.load()()
        try:
            one.check(encoder, data)
        except UserError as reason:
            notes.append(f"{row.with_full} were left out: {reason}.")
        else:
            more.append(one)
    return replace(request, measure=(*request.measure, *more)), tuple(notes)


def _output(request: Request, data: Dataset, threat: ThreatModel) -> Path | None:
    """runs/MODEL/DATASET-NORM-EPS, with what differs from the defaults appended."""
    if request.output != "auto":
        return request.output
    words = [data.name, threat.norm.lower(), str(threat).split()[1]]
    n = None if request.limit is None else len(data)
    words += differing(request, labels=request.probe.labels, n=n)
    return Path(
        "runs", safe_name(model_word(request.model)), safe_name("-".join(words))
    )


def differing(
    request: Request, *, labels: str | None = None, n: int | None = None
) -> list[str]:
    """Words for what differs from the defaults, so that its runs lie apart.

    Args:
        request: What was asked for.
        labels: Part of the training labels that the probe uses; null for all.
        n: Images, if not all of them.
    """
    words = [request.probe.protocol.lower()] * (request.probe.protocol != "SLF")
    words += [f"{labels}-labels".replace("%", "pct")] * (labels is not None)
    words += [f"l2-{request.probe.l2}"] * (request.probe.l2 is not None)
    words += [request.attacks] * (request.attacks != Request.attacks)
    words += [request.engine] * (request.engine != Request.engine)
    words += [request.randomness] * (request.randomness != Request.randomness)
    words += [f"n{n}"] * (n is not None)
    words += ["stratified"] * request.stratified
    words += [request.kind] if request.kind else []
    words += [f"seed{request.settings.seed}"] * (request.settings.seed != 0)
    return words


def model_word(model: str | nn.Module) -> str:
    """What run folders are called after."""
    if not isinstance(model, str):
        return "model"
    return Path(model).stem if Path(model).is_file() else model.removeprefix("zoo:")
