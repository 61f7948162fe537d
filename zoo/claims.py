"""What an entry claims, field by field, and what each claim rests on.

Three classes: *recomputed* from weights, head, perturbations and images by forward
passes; *consistent*, following from other fields and computed again from them; *stated*
by whoever published it, and by nothing else. A test walks all records and fails for a
field that is in none of them, or whose forgery its class does not answer for. Imports
no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import get_args

from pydantic import BaseModel

from zoo.measurements import Measurements
from zoo.schema import Proportion
from zoo.threat import ThreatModel


class Basis(StrEnum):
    """What a claim rests on."""

    RECOMPUTED = "recomputed"
    CONSISTENT = "consistent"
    STATED = "stated"


EXPLAINED = {
    Basis.RECOMPUTED: "from the published weights, perturbations and images, by "
    "forward passes",
    Basis.CONSISTENT: "follows from other fields of the entry, computed again",
    Basis.STATED: "by the publisher alone",
}
UNPROVEN = (
    "that an attack which fooled nothing was really run, and that no stronger one "
    "exists"
)
"""What no check without an attack can tell; `verify --attack N` tries."""

BOUND = "result.measurements.bound"
_MEASURED = [name for name in Measurements.model_fields if name != "others"]
COLUMNS = {
    f"{BOUND}.examples": (
        "clean_loss",
        "adversarial_loss",
        "b1",
        "b2",
        "head_constant",
        "displacement",
        "margin",
    ),
    f"{BOUND}.settings": ("images", "displacement", "cross_entropy"),
}
"""Names of what lies in a field that holds several things."""
_WHOLE = (Proportion, ThreatModel)
"""One claim, though of several numbers."""
_PARTS = ("path", "sha256", "size")
_FILES = [
    f"entry.{file}.{part}"
    for file in ("result", "columns", "classifier", "deltas")
    for part in _PARTS
]
_TRAINING = (
    "method",
    "dataset",
    "threat",
    "labels",
    "extra_data",
    "command",
    "recipe",
    "seed",
    "epochs",
    "passes",
    "seconds",
    "versions",
)


def _under(place: str, *names: str) -> list[str]:
    return [f"{place}.{name}" for name in names]


_TABLE: tuple[tuple[Basis, str, list[str]], ...] = (
    (
        Basis.RECOMPUTED,
        "SHA-256 of the file",
        [
            *_FILES,
            *_under("worst.deltas", *_PARTS),
            "entry.weights_sha256",
            *_under("card", "weights", "sha256"),
            *_under("columns", "file", "file_sha256"),
        ],
    ),
    (
        Basis.RECOMPUTED,
        "the encoder is built from its weights, the classifier from it and its head",
        [
            *_under("card", "arch", "shape", "dim"),
            *_under("result.model", "arch", "parameters", "weights_sha256"),
        ],
    ),
    (
        Basis.RECOMPUTED,
        "SHA-256 over the pixels and labels of the images at hand",
        [
            *_under("result.dataset", "name", "split", "sha256", "classes", "shape"),
            *_under("result.examples", "index", "label"),
        ],
    ),
    (
        Basis.RECOMPUTED,
        "each adversarial lies in this ball",
        ["result.threat"],
    ),
    (
        Basis.RECOMPUTED,
        "forward passes over clean images at two batch sizes",
        ["result.examples.clean_prediction"],
    ),
    (
        Basis.RECOMPUTED,
        "an adversarial for each fooling; that the others were attacked is unproven",
        ["result.examples.outcomes"],
    ),
    (
        Basis.RECOMPUTED,
        "an adversarial for each, of an image that the entry calls robust",
        ["worst.fallen"],
    ),
    (
        Basis.RECOMPUTED,
        "forward passes over clean images, and the weights of the head",
        [
            *_under(
                f"{BOUND}.examples", "clean_loss", "b1", "b2", "head_constant", "margin"
            ),
            *_under(BOUND, "limits", "relative_displacement"),
            *_under(
                "result.measurements.lipschitz",
                "norm",
                "constant",
                "method",
                "certified",
                "curve.radius",
                "curve.certified",
                "radius",
            ),
        ],
    ),
    (
        Basis.CONSISTENT,
        "with the place where it lies and the record that names it",
        [
            *_under("entry", "schema_version", "name", "encoder"),
            *_under("card", "schema_version", "name"),
            "result.schema_version",
            *_under("worst", "schema_version", "encoder", "entry"),
        ],
    ),
    (
        Basis.CONSISTENT,
        "with the battery's name, unless that is custom",
        [
            *_under("result", "battery", "engine"),
            *_under("result.attacks[]", "name", "engine", "sequence", "parameters"),
        ],
    ),
    (
        Basis.CONSISTENT,
        "counted from the columns",
        [
            "result.dataset.n",
            "result.examples.verdict",
            *_under("result", "clean", "robust", "undecided"),
            *_under("result.per_class", "clean", "robust", "classes"),
            *_under("result.attacks[]", "attempted", "fooled", "refused"),
            *_under("result.attacks[]", "undecided", "robust"),
            *_under("result.evidence", "count", "tolerance"),
            "worst.robust",
        ],
    ),
    (
        Basis.CONSISTENT,
        "drawn again by the seed from what the attacks on all images left, and counted",
        _under(
            "result.audit",
            "attacks",
            "seed",
            "standing",
            "drawn",
            "fell",
            "robust_low",
            "robust_high",
        ),
    ),
    (
        Basis.CONSISTENT,
        "with the dataset and protocol, and versions that are known",
        _under("result.task", "dataset", "probe"),
    ),
    (
        Basis.CONSISTENT,
        "with the number of training images used",
        ["result.probe.labels"],
    ),
    (
        Basis.CONSISTENT,
        "no fewer images than what its attacks did pays for, and lists as long",
        [f"{BOUND}.settings.images", "result.measurements.health.n"],
    ),
    (
        Basis.CONSISTENT,
        "computed from the lists beside it",
        [
            *_under(BOUND, "clean_loss", "adversarial_loss", "b1", "b2"),
            *_under(BOUND, "head_constant", "displacement", "tightness"),
            *_under(BOUND, "estimated_robust", "limited_by"),
            *_under("result.measurements.smoothing", "smoothed", "abstained"),
            *_under(
                "result.measurements.smoothing.curve",
                "radius",
                "certified",
            ),
            *_under("result.measurements.smoothing", "average_radius", "index"),
            "result.measurements.smoothing.norm",
            "result.measurements.corruptions.mean",
            "result.measurements.eps_curve.points[].eps",
            "result.measurements.health.level",
            *_under(
                "result.measurements.health.flags[]", "check", "status", "examples"
            ),
        ],
    ),
    (
        Basis.STATED,
        "how the encoder was made; card and result must say the same",
        [
            *_under("card.training", *_TRAINING),
            *_under("result.model.training", *_TRAINING),
        ],
    ),
    (
        Basis.STATED,
        "words about the encoder",
        _under("card", "description", "licence", "source", "robustbench_id", "notes"),
    ),
    (
        Basis.STATED,
        "how the head was fitted: it is published, not what it was fitted on",
        [
            "entry.protocol",
            *_under("result.probe", "protocol", "parameters", "train", "train_n"),
            *_under("result.probe", "train_accuracy", "validation_accuracy"),
            *_under("result.probe", "knn_accuracy", "seconds"),
        ],
    ),
    (
        Basis.STATED,
        "settings, timings and files of the run, which is not published",
        [
            *_under("result.model", "reference", "file", "file_sha256"),
            *_under("result.evidence", "file", "file_sha256"),
            *_under("result", "chunk_size", "seed", "notes", "seconds"),
            *_under("result.attacks[]", "seconds", "notes"),
            *_under("result.provenance", "created", "robrep", "revision"),
            *_under("result.provenance", "versions", "device", "threads", "command"),
        ],
    ),
    (
        Basis.STATED,
        "which attacks were tried beyond the entry's battery",
        [*_under("worst", "batteries", "tried")],
    ),
    (
        Basis.STATED,
        "what attacks or samples came to of which nothing is published",
        [
            *_under(f"{BOUND}.examples", "displacement", "adversarial_loss"),
            *_under(BOUND, "strongest"),
            *(
                f"result.measurements.{name}.settings"
                for name in _MEASURED
                if name != "bound"
            ),
            *_under(f"{BOUND}.settings", "displacement", "cross_entropy"),
            "result.measurements.others",
            *_under("result.measurements.smoothing", "sigma", "n0", "n", "alpha"),
            *_under("result.measurements.smoothing", "probe", "prediction", "radius"),
            *_under(
                "result.measurements.label_free",
                "universal_quantile",
                "remaining_distance_ratio",
                "breakaway_risk",
                "nearest_top1",
                "nearest_top5",
                "overlap_risk",
                "margin",
                "impersonation",
                "n",
            ),
            *_under("result.measurements.corruptions", "source", "official"),
            *_under(
                "result.measurements.corruptions.cells[]",
                "corruption",
                "severity",
                "accuracy",
            ),
            "result.measurements.eps_curve.attack",
            "result.measurements.eps_curve.points[].robust",
            *_under("result.measurements.health.flags[]", "summary", "value", "limit"),
        ],
    ),
)

CLAIMS: dict[str, tuple[Basis, str]] = {
    path: (basis, reason) for basis, reason, paths in _TABLE for path in paths
}
"""Path of each field to its class and the reason."""


def fields(kind: type[BaseModel], path: str) -> Iterator[str]:
    """Paths of all fields of a record and of the records in it; "[]": in a list."""
    for name, field in kind.model_fields.items():
        here = f"{path}.{name}"
        for inner, mark in _inside(field.annotation):
            yield from fields(inner, here + mark)
            break
        else:
            parts = COLUMNS.get(here)
            yield from (f"{here}.{part}" for part in parts) if parts else (here,)


def _inside(annotation: object) -> Iterator[tuple[type[BaseModel], str]]:
    """Records that a field holds: X, X | None or list[X]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in _WHOLE:
            yield annotation, ""
        return
    mark = "[]" if getattr(annotation, "__origin__", None) is list else ""
    for part in get_args(annotation):
        yield from ((kind, mark + more) for kind, more in _inside(part))


def names(basis: Basis) -> str:
    """Fields of a class for people, as "place: name, name; place: name".

    A place whose fields are all of that class is named as a whole.
    """
    mine = {path for path, (found, _) in CLAIMS.items() if found is basis}
    others = CLAIMS.keys() - mine
    shown: dict[str, list[str]] = {}
    for path in CLAIMS:
        if path not in mine:
            continue
        parts = path.split(".")
        depth = next(
            at
            for at in range(2, len(parts) + 1)
            if not any(f"{o}.".startswith(".".join(parts[:at]) + ".") for o in others)
        )
        place, name = ".".join(parts[: depth - 1]), parts[depth - 1]
        listed = shown.setdefault(place, [])
        if name not in listed:
            listed.append(name)
    return "; ".join(f"{place}: {', '.join(found)}" for place, found in shown.items())
