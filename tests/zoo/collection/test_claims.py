"""Every field of an entry is altered; its class says what must come of that.

One file in spite of its length: one walk over all fields, and what some need for it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import measured
import pytest
import torch
from pydantic import BaseModel
from whole import read_whole, write_whole

from zoo.affordable import fewest
from zoo.batteries import CUSTOM, shown
from zoo.bound import features_and_logits, from_reached
from zoo.claims import CLAIMS, Basis, fields, names
from zoo.collection.audit import Audit, audit, plan
from zoo.collection.entries import Entry, load_classifier, read_entry
from zoo.collection.index import INDEX, FileRecord, scan
from zoo.collection.sources import FolderSource
from zoo.collection.worst_case import WorstCase
from zoo.errors import RobrepError
from zoo.layout import ON_CPU
from zoo.records import Card, Result, write_record
from zoo.result_file import PATTERN, ColumnsFile
from zoo.schema import Proportion
from zoo.threat import ThreatModel
from zoo.verification import load_named_dataset

KINDS: dict[str, type[BaseModel]] = {
    "card": Card,
    "entry": Entry,
    "result": Result,
    "columns": ColumnsFile,
    "worst": WorstCase,
}
PATHS = [path for name, kind in KINDS.items() for path in fields(kind, name)]
REFERENCE = f"{measured.NAME}/{measured.ENTRY}"


@dataclass
class Forger:
    """Alters a published entry, and makes all checksums agree again."""

    root: Path
    pristine: dict[str, Any]
    now: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> Forger:
        place = root / measured.NAME / "entries" / measured.ENTRY
        pristine = {
            "card": json.loads((root / measured.NAME / "card.json").read_text()),
            "entry": json.loads((place / "entry.json").read_text()),
            "result": read_whole(place),
            "columns": json.loads((place / "result.json").read_text())["columns"],
            "worst": json.loads(next(place.glob("worst*.json")).read_text()),
        }
        return cls(root, pristine)

    def begin(self) -> dict[str, Any]:
        """What is published, to be altered."""
        self.now = copy.deepcopy(self.pristine)
        return self.now

    def audit(self, *, resealed: tuple[str, ...] = ("result", "columns")) -> Audit:
        """Publishes it as it is now, and checks it.

        Args:
            resealed: Files whose checksums the entry states anew.
        """
        folder = self.root / measured.NAME
        place = folder / "entries" / measured.ENTRY
        (folder / "card.json").write_text(json.dumps(self.now["card"]))
        write_whole(place, copy.deepcopy(self.now["result"]))
        if self.now["columns"] != self.pristine["columns"]:
            content = json.loads((place / "result.json").read_text())
            content["columns"] = self.now["columns"]
            (place / "result.json").write_text(json.dumps(content))
        entry = self.now["entry"]
        for key in resealed:
            if entry[key] == self.pristine["entry"][key]:
                path = (
                    next(place.glob(PATTERN)).name
                    if key == "columns"
                    else "result.json"
                )
                entry[key] = FileRecord.of(place, path).model_dump(mode="json")
        (place / "entry.json").write_text(json.dumps(entry))
        next(place.glob("worst*.json")).write_text(json.dumps(self.now["worst"]))
        try:
            write_record(self.root / INDEX, scan(self.root))
            source = FolderSource(self.root)
            found = [audit(source, item, data_dir=None) for item in plan(source, None)]
        except RobrepError as error:
            return Audit(item="", holds=False, reason=str(error), seconds=0.0)
        return next((each for each in found if not each.holds), found[-1])

    def result(self) -> Result:
        """As it is published now."""
        source = FolderSource(self.root)
        return read_entry(source, source.find(measured.NAME), measured.ENTRY).result


@pytest.fixture(scope="module")
def forger(tmp_path_factory: pytest.TempPathFactory) -> Forger:
    return Forger.of(measured.publish_measured(tmp_path_factory.mktemp("measured")))


Content = dict[str, Any]


def locate(content: Content, path: str) -> tuple[Any, str | int]:
    """Where the field lies (of a list of records, in the first), and its key."""
    here: Any = content
    *parents, last = path.split(".")
    for part in parents:
        here = here[part.removesuffix("[]")]
        here = here[0] if part.endswith("[]") else here
    return here, last


def annotation(path: str) -> Any:
    """Of the field, or of what a field of several columns holds."""
    first, *rest = path.split(".")
    kind: Any = KINDS[first]
    for name in rest:
        if get_origin(kind) is dict:
            return get_args(kind)[1]
        kind = kind.model_fields[name.removesuffix("[]")].annotation
        for part in get_args(kind):
            if isinstance(part, type) and issubclass(part, BaseModel):
                kind = part
    return kind


def altered(value: Any, kind: Any) -> list[Any]:
    """Other values of the same type; each is a forgery."""
    if get_origin(kind) is Literal:
        others = [choice for choice in get_args(kind) if choice != value]
        return others or altered(value, type(value))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [next(member.value for member in kind if member.value != value)]
    if isinstance(value, dict):
        return _altered_dict(value, kind)
    if isinstance(value, list):
        if not value:
            return [["x"]]
        inner = next(iter(get_args(kind)), None)
        return [[each, *value[1:]] for each in altered(value[0], inner)]
    if value is None:
        kinds = [k for k in get_args(kind) if k is not NoneType]
        return [{str: "x", int: 1, float: 0.5}.get(kinds[0], "x")]
    return [_altered_single(value)]


def _altered_single(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9 if value else 0.5
    if value.endswith("Z"):  # a time
        return "2020-01-01T00:00:00Z"
    return value[:-1] + ("0" if value[-1:] != "0" else "1")


def _altered_dict(value: Content, kind: Any) -> list[Any]:
    if kind is ThreatModel or set(value) == {"norm", "eps"}:
        return [{**value, "eps": value["eps"] * 0.9}, {**value, "norm": "Linf"}]
    if set(value) == set(Proportion.model_fields):
        lower = Proportion.of(value["k"] - 1 if value["k"] else 1, value["n"])
        narrow = {**value, "low": (value["low"] + value["value"]) / 2}
        if value["k"] in (0, value["n"]):
            narrow = {**value, "low": value["low"], "high": (value["high"] + 1) / 2}
            if value["k"]:
                narrow = {**value, "low": value["low"] / 2}
        return [lower.model_dump(), narrow]
    if not value:
        return [{"x": 1}]
    name, first = next(iter(value.items()))
    inner = (get_args(kind) or (None, None))[1]
    return [{**value, name: each} for each in altered(first, inner)]


# What is stated may be altered alone, or with the fields that must say the same.


def _both_trainings(now: Content, path: str) -> None:
    """Card and result say the same of the training."""
    name = path.rpartition(".")[2]
    for content in (now["card"], now["result"]["model"]):
        training = content["training"]
        training[name] = altered(training[name], annotation(path))[0]


def _another_protocol(now: Content) -> None:
    now["entry"]["protocol"] = "alf"
    now["result"]["probe"]["protocol"] = "ALF"
    now["result"]["task"]["probe"] = 1


def _fewer_labels(now: Content) -> None:
    now["result"]["probe"] |= {"labels": "40%", "train_n": round(0.4 * 1437)}


def _another_version(now: Content) -> None:
    now["result"]["provenance"]["robrep"] = "0.0.9"
    for run in now["result"]["attacks"]:
        if run["engine"].startswith("robrep "):
            run["engine"] = "robrep 0.0.9"


def _measured(name: str, **values: Any) -> Callable[[Content], None]:
    return lambda now: now["result"]["measurements"][name].update(values)


def _flag(check: str = "deterministic", **values: Any) -> Callable[[Content], None]:
    def forge(now: Content) -> None:
        flags = now["result"]["measurements"]["health"]["flags"]
        next(f for f in flags if f["check"] == check).update(values)

    return forge


def _less(now: Content) -> None:
    health = now["result"]["measurements"]["health"]
    health["flags"] = [f for f in health["flags"] if f["check"] != "deterministic"]


def _scaled(name: str) -> Callable[[Content], None]:
    def forge(now: Content) -> None:
        now["result"]["measurements"]["smoothing"][name] *= 1.1

    return forge


def _smoothing(row: int, prediction: int, radius: float) -> Callable[[Content], None]:
    """Another outcome for one image, with all that follows from it."""

    def forge(now: Content) -> None:
        found = now["result"]["measurements"]["smoothing"]
        found["prediction"][row], found["radius"][row] = prediction, radius
        examples = now["result"]["examples"]
        label = dict(zip(examples["index"], examples["label"], strict=True))
        rows = zip(found["index"], found["prediction"], found["radius"], strict=True)
        earned = [r if label[i] == p else -1 for i, p, r in rows]
        n = len(earned)
        found["abstained"] = found["prediction"].count(-1)
        right = sum(r >= 0 for r in earned)
        found["smoothed"] = Proportion.of(right, n).model_dump()
        found["average_radius"] = sum(max(r, 0) for r in earned) / n
        found["curve"]["certified"] = [
            Proportion.of(sum(r > at for r in earned), n).model_dump()
            for at in found["curve"]["radius"]
        ]

    return forge


def _eps_curve(now: Content) -> None:
    """Another count at the second radius, and the check that reports the rise."""
    found = now["result"]["measurements"]
    points = found["eps_curve"]["points"]
    k, n = points[1]["robust"]["k"] + 1, points[1]["robust"]["n"]
    points[1]["robust"] = Proportion.of(k, n).model_dump()
    counts = [point["robust"]["k"] for point in points]
    rise = max(b - a for a, b in pairwise(counts))
    flags = {flag["check"]: flag for flag in found["health"]["flags"]}
    flags["eps_monotone"]["value"] = float(rise)


def _cell(now: Content) -> None:
    found = now["result"]["measurements"]["corruptions"]
    found["cells"][0]["accuracy"] = Proportion.of(1, 48).model_dump()
    values = [cell["accuracy"]["value"] for cell in found["cells"]]
    found["mean"] = sum(values) / len(values)


def _severity(now: Content) -> None:
    now["result"]["measurements"]["corruptions"]["cells"][0]["severity"] = 5


def _strongest(now: Content) -> None:
    found = now["result"]["measurements"]["bound"]["strongest"]
    found["(displacement)"] -= 1
    found["(cross-entropy)"] += 1


def _adversarial_loss(now: Content) -> None:
    found = now["result"]["measurements"]["bound"]
    column, b2 = found["examples"]["adversarial_loss"], found["examples"]["b2"]
    column[0] = (column[0] + b2[0]) / 2
    found["adversarial_loss"] = sum(column) / len(column)
    found["tightness"] = found["adversarial_loss"] / found["b2"]


def _another_split(now: Content) -> None:
    """Of as many images, so that the share of labels is still one of them."""
    assert now["result"]["probe"]["train"] == "digits/train"
    now["result"]["probe"]["train"] = "digits-parity/train"


def _tried(now: Content) -> None:
    """One more or fewer, no fewer than fell and no more than are robust."""
    worst = now["worst"]
    most = worst["robust"]["k"] + len(worst["fallen"])
    worst["tried"][0] += -1 if worst["tried"][0] == most else 1


JOINTLY: dict[str, Callable[[Content], None]] = {
    "entry.protocol": _another_protocol,
    "result.probe.protocol": _another_protocol,
    "result.probe.train": _another_split,
    "result.probe.train_n": _fewer_labels,
    "result.provenance.robrep": _another_version,
    "result.measurements.health.flags[].value": _flag(value=5e-5),
    "result.measurements.health.flags[].limit": _flag("large_eps_breaks", limit=0.3),
    "result.measurements.smoothing.sigma": _scaled("sigma"),
    "result.measurements.smoothing.alpha": _scaled("alpha"),
    "result.measurements.smoothing.prediction": _smoothing(0, -1, 0.0),
    "result.measurements.smoothing.radius": _smoothing(0, 0, 0.01),
    "result.measurements.label_free.nearest_top5": _measured(
        "label_free", nearest_top5=0.99
    ),
    "result.measurements.label_free.n": _measured("label_free", n=40),
    "result.measurements.eps_curve.points[].robust": _eps_curve,
    "result.measurements.corruptions.cells[].accuracy": _cell,
    "result.measurements.corruptions.cells[].severity": _severity,
    "worst.tried": _tried,
    "result.measurements.bound.strongest": _strongest,
    "result.measurements.bound.examples.adversarial_loss": _adversarial_loss,
}
NEEDS_NETWORK = "result.measurements.bound.examples.displacement"
NAMED = ("result.battery", "result.engine")
"""Altered, they may also name no battery of robrep's: custom, and not ranked."""


def test_every_field_is_in_one_class() -> None:
    assert sorted(PATHS) == sorted(CLAIMS)
    assert len(PATHS) > 150


def test_the_entry_that_is_altered_has_every_field(forger: Forger) -> None:
    now = forger.begin()
    assert forger.audit().holds, forger.audit().reason
    for path in PATHS:
        here, key = locate(now, path)
        assert key in here, path


@pytest.mark.parametrize("path", [p for p in PATHS if CLAIMS[p][0] is not Basis.STATED])
def test_what_is_checked_cannot_be_altered(forger: Forger, path: str) -> None:
    here, key = locate(forger.begin(), path)
    for value in altered(here[key], annotation(path)):
        here, key = locate(forger.begin(), path)
        assert value != here[key]
        here[key] = value
        verdict = forger.audit()
        custom = path in NAMED and verdict.holds and shown(forger.result()) == CUSTOM
        assert custom or not verdict.holds, f"{path} = {value!r}"


@pytest.mark.parametrize("path", [p for p in PATHS if CLAIMS[p][0] is Basis.STATED])
def test_what_is_stated_is_said_to_be(forger: Forger, path: str) -> None:
    now = forger.begin()
    here, key = locate(now, path)
    if path in JOINTLY:
        JOINTLY[path](now)
    elif ".training." in path:
        _both_trainings(now, path)
    elif path == NEEDS_NETWORK:
        _displacement(forger)
    else:
        here[key] = altered(here[key], annotation(path))[0]
    assert forger.now != forger.pristine
    verdict = forger.audit()
    assert verdict.holds, verdict.reason
    assert verdict.stated is not None
    assert listed(verdict.stated, path), path


def listed(stated: str, path: str) -> bool:
    """Whether the field, or a place that it lies in, is named."""
    for part in stated.split("; "):
        place, _, found = part.partition(": ")
        named = [f"{place}.{name}." for name in found.split(", ")]
        if any(f"{path}.".startswith(name) for name in named):
            return True
    return False


def test_no_checked_field_is_called_stated() -> None:
    stated = names(Basis.STATED)
    wrong = [p for p in PATHS if CLAIMS[p][0] is not Basis.STATED and listed(stated, p)]
    assert wrong == []


def _displacement(
    forger: Forger, factor: float = 1.1, images: int | None = None
) -> None:
    """Another displacement, with all that follows from it and the network; or the same
    on the first images alone."""
    forger.begin()
    assert forger.audit().holds
    forger.begin()
    source = FolderSource(forger.root)
    published = read_entry(source, source.find(measured.NAME), measured.ENTRY)
    classifier = load_classifier(source, published)
    data = load_named_dataset(published.result, None)
    bound = published.result.measurements.bound
    assert bound is not None
    assert classifier.linear is not None
    n = images or bound.estimated_robust.n
    columns = {name: values[:n] for name, values in bound.examples.items()}
    moved = torch.tensor(columns["displacement"], dtype=torch.float64) * factor
    loss = torch.tensor(columns["adversarial_loss"], dtype=torch.float64)
    again = from_reached(
        features_and_logits(classifier, data.images(slice(n)), ON_CPU),
        data.labels[:n],
        classifier.linear.weight,
        (moved, loss),
        strongest={name: min(count, 1) for name, count in bound.strongest.items()}
        if images
        else bound.strongest,
        settings={**bound.settings, "images": n},
    )
    forger.now["result"]["measurements"]["bound"] = again.model_dump(mode="json")


def _curve_at(point: int, change: int) -> Callable[[Content], None]:
    def forge(now: Content) -> None:
        points = now["result"]["measurements"]["eps_curve"]["points"]
        k = points[point]["robust"]["k"] + change
        n = points[point]["robust"]["n"]
        points[point]["robust"] = Proportion.of(k, n).model_dump()

    return forge


def _few_checked(now: Content) -> None:
    """Health checks and curve on five images, all of them robust."""
    found = now["result"]["measurements"]
    found["health"]["n"] = 5
    for point in found["eps_curve"]["points"]:
        point["robust"] = Proportion.of(5, 5).model_dump()


def _no_loss(now: Content) -> None:
    """Adversarial losses as if nothing had been fooled, with their averages."""
    found = now["result"]["measurements"]["bound"]
    column = list(found["examples"]["clean_loss"])
    found["examples"]["adversarial_loss"] = column
    found["adversarial_loss"] = sum(column) / len(column)
    found["tightness"] = found["adversarial_loss"] / found["b2"]


JOINT_FORGERIES: dict[str, tuple[Callable[[Content], None], str]] = {
    "accuracy before the attack": (_curve_at(0, 1), "eps_curve at 0"),
    "a curve that rises": (_curve_at(3, 10), "largest rise of eps_curve"),
    "a failing check that passes": (_flag(value=0.5), "status of deterministic"),
    "a passing check that fails": (_flag(status="fail"), "status of deterministic"),
    "a limit that no check has": (_flag(limit=2e-4), "limit of deterministic"),
    "a check that is left out": (_less, "lack deterministic"),
    "no adversarial loss": (_no_loss, "a loss below log 2"),
    "few images checked": (_measured("health", n=5), "health checks: made on 5"),
    "few images checked and drawn": (_few_checked, "the limit of finds_planted"),
    "averages of no list": (_measured("bound", b1=0.1), "bound.b1"),
    "top 1 above top 5": (
        _measured("label_free", nearest_top1=0.9, nearest_top5=0.8),
        "top 1 above top 5",
    ),
    "a share of 3": (_measured("label_free", breakaway_risk=3.0), "not in [0, 1]"),
    "a radius beyond its samples": (_smoothing(0, 1, 0.2), "can prove"),
}


@pytest.mark.parametrize("name", JOINT_FORGERIES)
def test_measurements_that_contradict_others(forger: Forger, name: str) -> None:
    forge, reason = JOINT_FORGERIES[name]
    forge(forger.begin())
    verdict = forger.audit()
    assert not verdict.holds
    assert reason in str(verdict.reason)


def test_a_displacement_too_small_for_what_it_did(forger: Forger) -> None:
    _displacement(forger, 0.01)
    verdict = forger.audit()
    assert not verdict.holds
    assert "above b2" in str(verdict.reason)


def test_a_bound_on_few_images(forger: Forger) -> None:
    """The battery decides how many there are at least; more are welcome."""
    forger.begin()
    assert forger.audit().holds
    least = fewest(forger.result()).bound
    assert 1 < least < measured.IMAGES
    for images, holds in ((least, True), (least - 1, False), (1, False)):
        _displacement(forger, 1.0, images)
        verdict = forger.audit()
        assert verdict.holds == holds, verdict.reason
        assert holds or f"bound: made on {images} images" in str(verdict.reason)


@pytest.mark.parametrize(
    "name", ["labels", "extra_data", "dataset", "method", "threat"]
)
@pytest.mark.parametrize("where", ["card", "result"])
def test_card_and_result_tell_the_same_of_the_training(
    forger: Forger, name: str, where: str
) -> None:
    now = forger.begin()
    training = (now["card"] if where == "card" else now["result"]["model"])["training"]
    value = training[name]
    training[name] = altered(value, annotation(f"card.training.{name}"))[0]
    verdict = forger.audit()
    assert not verdict.holds
    assert f"{name} = " in str(verdict.reason)
