"""The images that a request means: to evaluate on, and to fit a probe on."""

from __future__ import annotations

from dataclasses import replace

from robrep_eval.attacks.battery import Battery
from robrep_eval.run.request import Request
from robrep_eval.run.surrogates import references
from zoo import datasets
from zoo.collection.references import Loaded, images_of, training_of
from zoo.datasets.base import Dataset
from zoo.datasets.names import PLACES, parts, recorded_name, split_name
from zoo.errors import UserError


def training_images(request: Request, data: Dataset) -> Dataset:
    """The training split that goes with the evaluated images."""
    if request.train is not None:
        return request.train.read_by(request.workers)
    if isinstance(request.dataset, str):
        return named_images(request, "train")
    if datasets.find(data.name) is None:
        raise UserError(
            f"give the images and labels that the probe of '{data.name}' is to be "
            "fitted on (train=)"
        )
    named = datasets.load(data.name, "train", data_dir=request.data_dir)
    return named.read_by(request.workers)


def named_images(request: Request, split: str) -> Dataset:
    """A split of the dataset of a request that `with_dataset` completed."""
    if isinstance(request.dataset, Dataset):
        return request.dataset.read_by(request.workers)
    assert request.dataset is not None
    found = datasets.load(
        request.dataset,
        split,
        data_dir=request.data_dir,
        called=request.dataset_name,
    ).read_by(request.workers)
    return found.without_broken(request.skip_broken) if request.skip_broken else found


def training_identity(
    request: Request, loaded: Loaded, battery: Battery, data: Dataset
) -> str | Dataset | None:
    """What `identify` takes: read here only if the name does not fix the content."""
    if loaded.encoder is None and not references(battery):
        return None
    if request.train is None and datasets.find(data.name) is not None:
        return f"{data.name}/train"
    return training_images(request, data)


def with_dataset(request: Request) -> Request:
    """With the dataset asked for, or the one that the encoder's card names.

    Where a user's own images are, the folder of the encoder says, not its card.
    """
    if request.dataset is not None:
        return request
    model = request.model
    training = training_of(model) if isinstance(model, str) else None
    if isinstance(model, str) and training is not None:
        place = images_of(model)
        if place is None:
            _check_named(model, training.dataset)
            return replace(request, dataset=training.dataset)
        called = request.dataset_name
        if called is None and training.dataset != recorded_name(place):
            called = parts(split_name(training.dataset)[0])[1]
        return replace(request, dataset=place, dataset_name=called)
    shown = f"'{model}'" if isinstance(model, str) else type(model).__name__
    raise UserError(f"name a dataset for model {shown} (--dataset NAME)")


def _check_named(model: str, dataset: str) -> None:
    """A card, which others may have written, opens no folder and fetches nothing."""
    if dataset.startswith(PLACES):
        raise UserError(
            f"the card of '{model}' names '{dataset}', somebody's own images; name the "
            "ones to evaluate (--dataset NAME)"
        )


def notes_on_own(training: str | Dataset | None) -> tuple[str, ...]:
    """Notes on training images of the user's own, of which some may be broken."""
    return training.notes if isinstance(training, Dataset) else ()
