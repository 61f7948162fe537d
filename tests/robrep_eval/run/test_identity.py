"""One folder, one evaluation: whatever can change a figure makes another run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robrep_eval import evaluate
from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.run.chunk import BatterySettings
from robrep_eval.run.identity import differences
from robrep_eval.run.plan import prepare
from robrep_eval.run.request import Request
from zoo import datasets
from zoo.classifier import Classifier
from zoo.datasets.base import from_tensors
from zoo.encoder import Encoder, EncoderSpec
from zoo.errors import UserError
from zoo.files import read_json, write_json
from zoo.records import Result

TRAIN = datasets.load("digits", "train")
TEST = datasets.load("digits", "test")
OWN = from_tensors(
    TRAIN.images(slice(700)),
    TRAIN.labels[:700],
    name="mine",
    classes=TRAIN.classes,
    split="train",
)


@pytest.fixture(scope="module")
def request_(plain_classifier: Classifier) -> Request:
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    return Request(
        model=encoder,
        dataset="digits",
        eps=0.1,
        attacks="none",
        limit=20,
        measure=(),
    )


@pytest.fixture(scope="module")
def finished(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity") / "run"
    _run(request_, folder)
    return folder


def _run(request: Request, folder: Path, **more: Any) -> Result:
    given = {field.name: getattr(request, field.name) for field in fields(request)}
    return evaluate(given.pop("model"), **{**given, "output": folder, **more})


PROBE: dict[str, Any] = {
    "protocol": "ALF",
    "labels": "30",
    "penalties": (1e-5, 1.0),
    "validation_share": 0.1,
    "tolerance": 1e-3,
    "max_iterations": 7,
    "seed": 1,
    "features": "float16",
}
SETTINGS: dict[str, Any] = {"seed": 1, "chunk_size": 8}


def _probe(**change: Any) -> dict[str, Any]:
    return {"probe": replace(ProbeSettings(), **change)}


OTHERS: list[tuple[dict[str, Any], str]] = [
    *[(_probe(**{name: value}), f"probe.{name}") for name, value in PROBE.items()],
    *[
        ({"settings": replace(BatterySettings(), **{name: value})}, f"settings.{name}")
        for name, value in SETTINGS.items()
    ],
    ({"eps": 0.1000004}, "threat.eps: 0.1 there, 0.1000004 now"),
    ({"norm": "L2"}, "threat.norm: Linf there, L2 now"),
    ({"attacks": "fgsm"}, "attacks.names: none there, fgsm now"),
    ({"randomness": "official-rng"}, "attacks.engine: robrep there"),
    ({"engine": "reference"}, "attacks.engine: robrep there, reference now"),
    ({"limit": 19}, "dataset.positions"),
    ({"limit": 12, "stratified": True}, "dataset.positions"),
    ({"dataset": TEST.subset(list(range(20, 40)))}, "dataset.sha256"),
    ({"train": TRAIN.subset(slice(700))}, "train.sha256: (not noted) there"),
    ({"dataset": "digits-parity"}, "dataset.name: digits/test there, digits-parity"),
]


@pytest.mark.parametrize(("change", "said"), OTHERS, ids=[said for _, said in OTHERS])
def test_another_setting_is_another_evaluation(
    change: dict[str, Any], said: str, request_: Request, finished: Path
) -> None:
    before = (finished / "result.json").read_bytes()
    with pytest.raises(UserError, match="holds another evaluation") as refused:
        _run(replace(request_, **change), finished)
    assert said in str(refused.value)
    assert (finished / "result.json").read_bytes() == before


def test_every_setting_is_tried_above() -> None:
    """A new field is part of the identity at once, and this test asks for its row."""
    assert PROBE.keys() == {field.name for field in fields(ProbeSettings)}
    layout = {"batch_size", "device"}
    assert SETTINGS.keys() | layout == {field.name for field in fields(BatterySettings)}
    tried = {name for change, _ in OTHERS for name in change}
    weights = {"model", "kind", "arch", "arch_options", "mean", "std"}  # by their hash
    free = {"measure", "data_dir", "output", "overwrite", "wait", "report", "command"}
    free |= {"workers", "features"}
    weights.add("skip_broken")  # by the images that are left
    weights |= {"prefix"}  # of a checkpoint: by their hash as well
    weights.add("dataset_name")  # by that of the images
    assert tried | weights | free == {field.name for field in fields(Request)}


def test_where_and_how_much_at_once_is_free(request_: Request, finished: Path) -> None:
    said: list[str] = []
    same = replace(request_, eps="0.1", settings=BatterySettings(batch_size=7))
    _run(same, finished, on_stage=said.append)
    assert any("nothing left to do" in line for line in said)


def _spec(**change: Any) -> Callable[[nn.Module], Encoder]:
    """The same weights in an encoder that reads images otherwise."""

    def remade(encoder: nn.Module) -> Encoder:
        assert isinstance(encoder, Encoder)
        content = {**encoder.spec.model_dump(), **change}
        other = Encoder(EncoderSpec.model_validate(content))
        other.load_state_dict(encoder.state_dict())
        return other.eval()

    return remade


@pytest.mark.parametrize("whole", [False, True], ids=["encoder", "classifier"])
def test_the_same_weights_with_another_normalisation_are_another_model(
    whole: bool, plain_classifier: Classifier, tmp_path: Path
) -> None:
    def model(encoder: nn.Module) -> Any:
        head = plain_classifier.head
        shape = plain_classifier.shape
        return Classifier(encoder, head, classes=10, shape=shape) if whole else encoder

    request = Request(
        model=model(plain_classifier.encoder),
        dataset="digits",
        eps=0.1,
        attacks="none",
        limit=20,
        measure=(),
    )
    folder = tmp_path / "run"
    _run(request, folder)
    other = model(_spec(mean=(0.0,))(plain_classifier.encoder))
    with pytest.raises(UserError, match=r"model\.spec\.mean: \[0\.3\] there, \[0\.0\]"):
        _run(replace(request, model=other), folder)


def test_a_strangers_weights_in_other_modules_are_another_model(tmp_path: Path) -> None:
    def stranger(*between: nn.Module) -> Classifier:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), *between)
        return Classifier(body, nn.Identity(), classes=10, shape=(1, 8, 8))

    request = Request(
        model=stranger(),
        dataset="digits",
        eps=0.1,
        attacks="none",
        limit=20,
        measure=(),
    )
    first = prepare(request).identity
    assert (
        differences(
            first, prepare(replace(request, model=stranger())).identity, None, None
        )
        == []
    )
    other = prepare(replace(request, model=stranger(nn.Tanh()))).identity
    assert other["model"]["weights"] == first["model"]["weights"]
    (told,) = differences(first, other, None, None)
    assert told.startswith("model.modules: ")


def test_the_same_training_images_are_the_same_run(
    request_: Request, tmp_path: Path
) -> None:
    said: list[str] = []
    own = replace(request_, train=TRAIN.subset(slice(700)))
    _run(own, tmp_path / "run")
    given = {field.name: getattr(own, field.name) for field in fields(own)}
    again = {
        **given,
        "train": TRAIN.subset(list(range(700))),
        "output": tmp_path / "run",
    }
    evaluate(again.pop("model"), on_stage=said.append, **again)
    assert any("nothing left to do" in line for line in said)


# --- folders of the first robrep ------------------------------------------------------


def _first_form(identity: dict[str, Any], **change: Any) -> dict[str, Any]:
    """What the first robrep noted of such a run."""
    penalties = identity["probe"]["penalties"]
    return {
        "model": identity["model"]["reference"],
        "weights": identity["model"]["weights"],
        "dataset": identity["dataset"]["name"],
        "images": identity["dataset"]["sha256"],
        "threat": f"{identity['threat']['norm']} {identity['threat']['eps']:g}",
        "attacks": identity["attacks"]["names"],
        "engine": identity["attacks"]["engine"],
        "seed": identity["settings"]["seed"],
        "chunk_size": identity["settings"]["chunk_size"],
        "probe": identity["probe"]["protocol"],
        "labels": identity["probe"]["labels"],
        "l2": penalties[0] if len(penalties) == 1 else None,
        **change,
    }


def _older(request: Request, folder: Path, **change: Any) -> None:
    """A run whose folder notes it as the first robrep did."""
    _run(request, folder)
    noted = read_json(folder / "run.json")
    noted["identity"] = _first_form(noted["identity"], **change)
    write_json(folder / "run.json", noted)


def test_an_older_folder_that_says_the_same_is_taken_up(
    request_: Request, tmp_path: Path
) -> None:
    _older(request_, tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    _run(request_, tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("begun", "now", "said"),
    [
        ({}, _probe(seed=1), "probe.seed: 0 there, 1 now"),
        (_probe(seed=1), {}, "probe.seed: 1 there, 0 now"),
        (_probe(validation_share=0.1), {}, "probe.validation_share: 0.1 there, 0.2"),
        (_probe(penalties=(1e-3, 1.0)), {}, "probe.penalties: [0.001, 1.0] there"),
        ({}, _probe(max_iterations=3), "probe.max_iterations: 5000 there, 3 now"),
        ({"eps": 0.1000004}, {}, "threat.eps: 0.1000004 there, 0.1 now"),
        ({}, {"eps": 0.1000004}, "threat.eps: 0.1 there, 0.1000004 now"),
        ({"train": OWN}, {}, "train.name: mine/train there, digits/train now"),
        ({}, {"train": TRAIN.subset(slice(700))}, "train.sha256: (not noted) there"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_older_folder_that_may_be_another_is_refused(
    begun: dict[str, Any],
    now: dict[str, Any],
    said: str,
    request_: Request,
    tmp_path: Path,
) -> None:
    _older(replace(request_, **begun), tmp_path / "run")
    with pytest.raises(UserError, match="holds another evaluation") as refused:
        _run(replace(request_, **now), tmp_path / "run")
    assert said in str(refused.value)


def test_a_damaged_identity_is_called_so(request_: Request, finished: Path) -> None:
    noted = read_json(finished / "run.json")
    kept = (finished / "run.json").read_bytes()
    broken: list[Any] = [
        [],
        {},
        {**noted, "identity": []},
        {**noted, "identity": {}},
        {**noted, "identity": {"weights": 1}},
        {**noted, "identity": {**noted["identity"], "settings": 3}},
        {**noted, "probe": {"protocol": "SLF"}},
    ]
    for content in broken:
        write_json(finished / "run.json", content)
        with pytest.raises(UserError, match="is damaged; use --overwrite"):
            _run(request_, finished)
    (finished / "run.json").write_bytes(kept)
