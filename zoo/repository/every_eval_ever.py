"""An entry in the form of Every Eval Ever, a schema shared by evaluations of all kinds.

Written for version 0.3.0 of its `eval.schema.json` (EvalEval Coalition 2026, package
every-eval-ever). What that has no field for stands in its `additional_details`, whose
values are text.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from typing import Any

from zoo.collection.entries import Published
from zoo.collection.model_card import HUB_DATASETS
from zoo.errors import UserError
from zoo.judgement import judge
from zoo.records import Proportion
from zoo.task_version import version_of

SCHEMA = "0.3.0"
COLLECTION = "robrep"
"""The folder of all results of robrep in that collection."""
Content = dict[str, Any]


def check_developer(name: str) -> str:
    """The name; raises `UserError` if it cannot be a folder's."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,95}", name) or name == "data":
        raise UserError(
            f"'{name[:80]}' cannot name the developer of models; use letters, digits, "
            "'_' and '-'"
        )
    return name


def place(published: Published, developer: str) -> str:
    """data/COLLECTION/DEVELOPER/MODEL/UUID.json, the same each time for one result."""
    digest = hashlib.sha256(
        f"{published.reference} {published.entry.result.sha256}".encode()
    ).digest()
    name = uuid.UUID(bytes=digest[:16], version=4)
    return f"data/{COLLECTION}/{developer}/{published.row.card.name}/{name}.json"


def record(published: Published, developer: str, source: str | None = None) -> Content:
    """The whole record, as JSON.

    Args:
        published: An entry.
        developer: Who made the encoder, as the hub calls them.
        source: Where people find the entry, if that is known.
    """
    result, card = published.result, published.row.card
    created = result.provenance.created
    stamp = f"{created.timestamp():.0f}"
    identity = f"{developer}/{card.name}"
    where = f" --source {source}" if source else ""
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{COLLECTION}/{developer}_{card.name}/"
        f"{published.entry.name}/{stamp}",
        "evaluation_timestamp": created.isoformat(),
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": f"entry {published.reference}",
            "source_type": "evaluation_run",
            "source_organization_name": developer,
            "evaluator_relationship": "first_party",
            "additional_details": {
                "verify": f"robrep-zoo verify {published.reference}{where}"
            },
        },
        "eval_library": {
            "name": "robrep",
            "version": result.provenance.robrep,
            "additional_details": _texts(
                {
                    "revision": result.provenance.revision,
                    "versions": result.provenance.versions,
                }
            ),
        },
        "model_info": {
            "name": card.name,
            "id": identity,
            "developer": developer,
            "inference_platform": "local",
            "inference_engine": {
                "name": "pytorch",
                "version": result.provenance.versions.get("torch", "unknown"),
            },
            "additional_details": _texts(
                {
                    "deployment_type": "self_deployed",
                    "model_availability": "open_weights",
                    "architecture": card.arch,
                    "weights_sha256": card.sha256,
                    "method": card.training.method,
                    "trained_on": card.training.dataset,
                    "trained_against": card.training.threat or "nothing",
                    "labels_in_pretraining": card.training.labels,
                    "licence": card.licence,
                }
            ),
        },
        "evaluation_results": [
            _figure(published, "clean", result.clean),
            *([_figure(published, "robust", result.robust)] if result.attacks else []),
        ],
    }


def _figure(published: Published, name: str, figure: Proportion) -> Content:
    """One accuracy with its interval."""
    result = published.result
    robust = name == "robust"
    words = "correct under every attack" if robust else "correct without attack"
    probe = result.probe
    version = version_of(result)
    details = _texts(
        {
            "protocol": published.protocol,
            "protocol_version": version.probe,
            "dataset_version": version.dataset,
            "fitted_on": probe.train if probe else None,
            "training_images": probe.train_n if probe else None,
            "correct": figure.k,
            "undecided": result.undecided,
            "health": judge(result.measurements.health) if robust else None,
        }
    )
    return {
        "evaluation_result_id": f"{published.entry.name}/{name}_accuracy",
        "evaluation_name": published.entry.name,
        "source_data": _data(published),
        "metric_config": {
            "evaluation_description": f"Share of images that are {words}"
            + (f": {published.battery}, {result.threat}" if robust else ""),
            "metric_id": "robrep.robust_accuracy" if robust else "accuracy",
            "metric_name": f"{name} accuracy",
            "metric_kind": "accuracy",
            "metric_unit": "proportion",
            "metric_parameters": {
                "norm": result.threat.norm,
                "eps": result.threat.eps,
                "battery": published.battery,
            }
            if robust
            else {},
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {
            "score": figure.value,
            "details": details,
            "uncertainty": {
                "confidence_interval": {
                    "lower": figure.low,
                    "upper": figure.high,
                    "confidence_level": 0.95,
                    "method": "Clopper-Pearson",
                },
                "num_samples": figure.n,
            },
        },
    }


def _data(published: Published) -> Content:
    """The evaluated images: by the hub's name where it has one."""
    data = published.result.dataset
    details = _texts({"sha256": data.sha256, "images": data.n, "split": data.split})
    hub = HUB_DATASETS.get(data.name)
    if hub is None:
        known: Content = {"source_type": "other"}
    else:
        known = {"source_type": "hf_dataset", "hf_repo": hub, "hf_split": data.split}
        known["samples_number"] = data.n
    return {"dataset_name": data.name, **known, "additional_details": details}


def _texts(values: dict[str, object]) -> dict[str, str]:
    """All as text; what is absent is left out."""
    return {
        key: value if isinstance(value, str) else _text(value)
        for key, value in values.items()
        if value is not None
    }


def _text(value: object) -> str:
    plain = isinstance(value, bool | int | float | list | dict)
    return json.dumps(value, sort_keys=True) if plain else str(value)
