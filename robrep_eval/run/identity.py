"""What makes two evaluations the same one: everything that can change a figure.

A run folder notes it, and is taken up again only where no key of it differs. Settings
enter by their full dump, so a new one is part of it at once; model and images enter by
content, beside their names. Device and batch size are no part of it: they are where and
how much at once, and a run may go on with others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from robrep_eval.attacks.battery import Battery
from robrep_eval.probes.linear import FROZEN, ProbeSettings
from robrep_eval.run.chunk import BatterySettings
from robrep_eval.run.surrogates import references
from zoo.classifier import Classifier
from zoo.collection.references import Loaded
from zoo.collection.store import card
from zoo.datasets.base import Dataset
from zoo.datasets.names import recorded_name
from zoo.encoder import Encoder, fingerprint
from zoo.own_module import OwnEncoder
from zoo.records import ProbeRecord
from zoo.settings import LAYOUT, differing, dump
from zoo.task_version import GRIDS
from zoo.threat import ThreatModel, parse_eps

Identity = dict[str, Any]
"""Nested, JSON values only."""


def identify(
    *,
    loaded: Loaded,
    data: Dataset,
    train: str | Dataset | None,
    threat: ThreatModel,
    battery: Battery,
    settings: BatterySettings,
    probe: ProbeSettings,
) -> Identity:
    """The identity of an evaluation.

    Args:
        loaded: The model.
        data: The images to be evaluated.
        train: The images that probes are fitted on, by name ("digits/train") where
            that fixes the content; None if no probe is fitted.
        threat: Norm and eps.
        battery: The attacks.
        settings: Of the battery's run.
        probe: Of the fit; left out for a ready-made classifier.
    """
    return {
        "model": _model(loaded),
        "dataset": {**_images(data), "positions": _positions(data)},
        "train": _images(train) if train is not None else None,
        "threat": threat.model_dump(mode="json"),
        "attacks": {
            "names": battery.name,
            "engine": battery.engine,
            "sources": {
                name: card(name.removeprefix("zoo:")).sha256
                for name in references(battery)
            },
        },
        "settings": dump(settings),
        "probe": None if loaded.encoder is None else dump(probe),
    }


def _images(data: str | Dataset) -> Identity:
    if isinstance(data, str):
        return {"name": data}
    return {
        "name": f"{data.name}/{data.split}",
        "sha256": data.fingerprint(),
        "classes": len(data.classes),
    }


def _positions(data: Dataset) -> str:
    """Of the images in their split: randomness is keyed by them."""
    return hashlib.sha256(data.positions.astype("<i8").tobytes()).hexdigest()


def _model(loaded: Loaded) -> Identity:
    """Reference and weights, and what the weights do not say: how they are used."""
    module = loaded.encoder or loaded.classifier
    assert module is not None
    found: Identity = {"reference": loaded.reference, "weights": fingerprint(module)}
    encoder: nn.Module = module
    strange: list[nn.Module] = []
    if isinstance(module, Classifier):
        encoder, strange = module.encoder, [module.head]
    if isinstance(encoder, Encoder):
        found["spec"] = encoder.spec.model_dump(mode="json")
    if not isinstance(encoder, Encoder) or isinstance(encoder, OwnEncoder):
        strange.append(encoder)
    if strange:
        found["modules"] = hashlib.sha256(_printed(strange).encode()).hexdigest()
    return found


def _printed(modules: list[nn.Module]) -> str:
    """As torch prints them, layers and their options; without places in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(modules))


def differences(
    stored: Mapping[str, Any],
    identity: Mapping[str, Any],
    probe: ProbeRecord | None,
    threat: ThreatModel | None,
) -> list[str]:
    """What differs, "KEY: VALUE there, VALUE now" each; empty for the same evaluation.

    Args:
        stored: As a run folder noted it, in today's form or the first one.
        identity: As `identify` gives it.
        probe: What the folder notes of the probe that was fitted.
        threat: Of the folder's result, if it is finished.

    Raises:
        KeyError, TypeError, ValueError: `stored` is no identity.
    """
    if "weights" in stored:
        stored = _from_first_form(stored, identity, probe, threat)
    known = {**stored, **_recorded_names(stored)}
    # Settings that are younger than the run had their defaults.
    known["settings"] = {**dump(BatterySettings()), **stored["settings"]}
    if stored["probe"] is not None:
        known["probe"] = {**dump(ProbeSettings()), **stored["probe"]}
    found = differing(known, identity, without=LAYOUT)
    return [
        f"{k}: {_shown(old)} there, {_shown(new)} now"
        for k, (old, new) in found.items()
    ]


def _recorded_names(stored: Mapping[str, Any]) -> Identity:
    """Images of folders by the names that records have; once they held the path."""
    found: Identity = {}
    for key in ("dataset", "train"):
        if stored[key] is not None:
            name, _, split = stored[key]["name"].rpartition("/")
            found[key] = {**stored[key], "name": f"{recorded_name(name)}/{split}"}
    return found


def _shown(value: object) -> str:
    """Short enough for a line: of a hash the beginning."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text


def _from_first_form(
    known: Mapping[str, Any],
    identity: Mapping[str, Any],
    probe: ProbeRecord | None,
    threat: ThreatModel | None,
) -> Identity:
    """The identity of a run of the first robrep, which noted twelve words of it.

    What it did not note is read from the records beside it, or else was the default.
    Hashes that cannot be known (of training images that their name does not fix, of
    how a stranger's weights are used, of transfer sources) stay absent, and so differ.
    """
    model = {"reference": known["model"], "weights": known["weights"]}
    if "modules" not in identity["model"]:  # its weights' hash covers the description
        model["spec"] = identity["model"]["spec"]
    norm, eps = known["threat"].split()
    settings = ProbeSettings(
        protocol=known["probe"],
        labels=known.get("labels"),
        penalties=GRIDS["SLF", 1] if known.get("l2") is None else (known["l2"],),
    )
    train = f"{known['dataset'].rpartition('/')[0]}/train"
    return {
        "model": model,
        "dataset": {
            **identity["dataset"],  # classes and positions go with the images
            "name": known["dataset"],
            "sha256": known["images"],
        },
        "train": identity["train"] and {"name": probe.train if probe else train},
        "threat": threat.model_dump(mode="json")
        if threat
        else {"norm": norm, "eps": parse_eps(eps)},
        "attacks": {"names": known["attacks"], "engine": known["engine"]},
        "settings": {"seed": known["seed"], "chunk_size": known["chunk_size"]},
        "probe": identity["probe"] and {**dump(settings), **_recorded(probe)},
    }


def _recorded(probe: ProbeRecord | None) -> dict[str, Any]:
    """Settings that the record of a fitted probe states."""
    if probe is None:
        return {}
    said = probe.parameters
    names = ("validation_share", "tolerance", "seed")
    found: dict[str, Any] = {name: said[name] for name in names if name in said}
    if probe.protocol in FROZEN and len(said["validation_accuracy"]) > 1:
        tried = said.get("penalties", said["validation_accuracy"])
        found["penalties"] = [float(penalty) for penalty in tried]
    return found
