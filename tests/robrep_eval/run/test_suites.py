"""Suites: their files, and how they are evaluated."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from robrep_eval import evaluate, evaluate_suite
from robrep_eval.commands.cli import main
from robrep_eval.run.suite_figures import Estimate
from robrep_eval.run.suite_result import SuiteResult
from zoo import datasets
from zoo.collection.opening import open_source
from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.errors import UserError
from zoo.files import sha256_file
from zoo.records import Card, Training, read_record, write_record
from zoo.result_file import read_result
from zoo.suites import names
from zoo.suites.suite import load_suite
from zoo.threat import parse_eps
from zoo.verification import verify_folder


def share(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def test_there_is_a_suite_for_each_pretraining_set() -> None:
    assert names() == ["cifar10-jpeg", "digits", "fashion-mnist", "handwriting"]


OTHER = "handwriting"
"""Of images of another kind than the pretraining's."""


def test_a_suite_of_other_images_has_none_of_the_pretrainings() -> None:
    suite = load_suite(OTHER)
    assert len(suite.tasks) >= 8
    asked = {task.dataset for task in load_suite(suite.pretraining).tasks}
    for task in suite.tasks:
        assert not task.dataset.startswith(suite.pretraining)
        assert task.dataset not in asked
        data = datasets.load(task.dataset, "test")
        assert data.shape == datasets.get(suite.pretraining).shape


@pytest.mark.parametrize("name", [name for name in names() if name != OTHER])
def test_a_suite_has_eight_tasks_or_more_that_its_encoders_take(name: str) -> None:
    suite = load_suite(name)
    assert (suite.name, suite.pretraining) == (name, name)
    assert len(suite.tasks) >= 8
    shape = datasets.get(name).shape
    for task in suite.tasks:
        row = datasets.find(task.dataset)
        assert row is not None
        asked = task.dataset.partition("@")[2]
        taken = tuple(map(int, asked.split("x"))) if asked else row.shape
        assert taken == shape
        assert 0 < parse_eps(task.eps) <= 0.1
    shares = {task.labels for task in suite.tasks}
    assert "10%" in shares
    bases = {task.dataset.partition("@")[0].partition("+")[0] for task in suite.tasks}
    assert len(bases) >= 3
    known = {row.card.training.dataset for row in open_source().index.encoders}
    assert name in known


SUITE = """
schema_version: 1
name: small
version: 2
about: for a test
pretraining: digits
norm: Linf
images: 20
tasks:
  - {name: parity, dataset: digits+parity, eps: 0.05}
  - {name: few, dataset: digits, eps: 0.05, labels: 40}
"""


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SUITE)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["robrep-eval", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(str(stopped.value.code or 0)), out, err

    return run


def publish_encoder(folder: Path, seed: int, training: Training) -> None:
    """Fresh weights with a card."""
    torch.manual_seed(seed)
    options = {"widths": [4, 8], "blocks": [1, 1]}
    spec = EncoderSpec(arch="resnet_s8", options=options, shape=(1, 8, 8))
    encoder = Encoder(spec)
    save_encoder(encoder, folder / "model.safetensors")
    card = Card(
        name=folder.name,
        description="a test encoder",
        arch=spec.arch,
        shape=spec.shape,
        dim=encoder.dim,
        training=training,
        sha256=sha256_file(folder / "model.safetensors"),
        licence="Apache-2.0",
    )
    write_record(folder / "card.json", card)


@pytest.mark.slow
def test_a_suite_of_two_seeds_and_another_method(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        training = Training(
            method="tarrl", dataset="digits", seed=seed, recipe={"seed": seed}
        )
        publish_encoder(tmp_path / "zoo" / f"mine-{seed}", seed, training)
    other_method = Training(method="simclr", dataset="digits", recipe={"seed": 2})
    publish_encoder(tmp_path / "zoo" / "other", 2, other_method)
    monkeypatch.setenv("ROBREP_ZOO", str(tmp_path / "zoo"))
    words = ("--suite", "small.yaml", "--model", "zoo:mine-0,zoo:mine-1,zoo:other")
    few = ("--attacks", "fgsm", "--health", "none", "--quiet")
    code, out, err = call(*words, *few)
    assert code == 0, err
    folder = tmp_path / "runs" / "suite-small-v2-fgsm"
    found = read_record(folder / "suite.json", SuiteResult)
    assert (found.suite, found.version, found.images) == ("small", 2, 20)
    assert found.own_images
    assert [each.task for each in found.rows] == ["parity", "few"] * 3
    results = {
        (each.row.model, each.task): read_result(folder / str(each.row.folder))
        for each in found.rows
    }
    one = [results["zoo:mine-0", task].robust.value for task in ("parity", "few")]
    two = [results["zoo:mine-1", task].robust.value for task in ("parity", "few")]
    three = [results["zoo:other", task].robust.value for task in ("parity", "few")]
    alone, other, _, method = found.totals
    assert alone.models == ["zoo:mine-0"]
    assert share(alone.robust_mean) == pytest.approx(sum(one) / 2)
    assert share(alone.robust_worst) == pytest.approx(min(one))
    assert share(other.robust_mean) == pytest.approx(sum(two) / 2)
    assert method.models == ["zoo:mine-0", "zoo:mine-1"]
    assert method.name == "zoo:mine-0, 2 seeds"
    assert share(method.robust_mean) == pytest.approx(sum(one + two) / 4)
    assert method.labels is False
    [beside] = found.beside
    assert (beside.name, beside.first) == ("zoo:other", method.name)
    apart = sum(three) / 2 - sum(one + two) / 4
    assert beside.robust is not None
    assert beside.robust.value == pytest.approx(apart)
    assert beside.robust.low <= apart <= beside.robust.high
    assert f"zoo:other, less {method.name}: clean" in out
    assert "suite small, version 2, fgsm" in out
    assert "suite small, version 2, fgsm" in (folder / "suite.md").read_text()
    few_labels = results["zoo:mine-0", "few"].probe
    assert few_labels is not None
    assert few_labels.labels == "40"
    place = folder / "mine-0" / "parity"
    assert any(f.check == "labels" for f in verify_folder(place))
    written = {p: p.stat().st_mtime_ns for p in folder.glob("*/*/result.json")}
    assert len(written) == 6
    code, again, _ = call(*words, *few, "--json")
    assert SuiteResult.model_validate_json(again).rows == found.rows
    assert written == {p: p.stat().st_mtime_ns for p in written}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--suite", "digit"), "no suite 'digit'; did you mean 'digits'"),
        (("--suite", "digits", "--eps", "0.1"), "--eps is for the suite digits"),
        (("--suite", "digits", "--dataset", "mnist"), "--dataset is for the suite"),
        (("--suite", "digits", "--labels", "10%"), "--labels is for the suite"),
        (("--suite", "digits", "--crop", "6"), "--crop is for the suite"),
        (("--suite", "digits", "--test-share", "20%"), "--test-share is for the suite"),
        (("--suite", "digits", "--norm", "L2"), "is in Linf, not L2"),
        (("--suite", "digits", "--probe", "slf,alf"), "takes one --probe"),
        (("--suite", "digits", "--summary", "t.tex"), "a suite's tables are"),
        (("--suite", "no.yaml",), "cannot read the suite"),
        (("--suite", "digits", "--limit", "0"), "limit must be at least 1"),
    ],
)  # fmt: skip
def test_what_a_suite_does_not_take(call: Any, words: Any, message: str) -> None:
    code, _, err = call(*words, "--model", "zoo:tarrl-digits")
    assert code == 2
    assert message.lower() in " ".join(err.lower().split())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("digits+parity", "digits+parit", "parit"),
        ("name: few", "name: parity", "two tasks have one name"),
        ("eps: 0.05", "eps: -1", "eps"),
        ("eps: 0.05", "eps: true", "eps.*number"),
        ("images: 20", "images: true", "images"),
        ("version: 2", "version: true", "version"),
        ("labels: 40", "labels: 400%", "out of range"),
        ("version: 2", "version: 0", "version"),
        ("norm: Linf", "norm: Lp", "norm"),
        ("images: 20", "images: 20\nmore: 1", "more"),
        ("digits+parity, eps: 0.05}", "digits, eps: 0.05, labels: 40}", "are one"),
    ],
)
def test_a_file_that_is_no_suite(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SUITE.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_suite(str(path))


def test_tasks_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    text = SUITE.replace("name: parity", "name: a+b").replace("name: few", "name: a%b")
    path.write_text(text)
    with pytest.raises(UserError, match="the tasks 'a\\+b' and 'a%b' would share"):
        load_suite(str(path))


def test_a_suite_is_a_plain_file_of_a_plain_size(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe.yaml", tmp_path / "large.yaml"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(3 << 30)
    for path in (pipe, large):
        with pytest.raises(UserError, match=re.escape(str(path))):
            load_suite(str(path))


def test_a_module_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    """Each task's result is what `evaluate` says of it."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    suite = load_suite("small.yaml")
    few: Any = {"attacks": "fgsm", "limit": 12, "measure": ()}
    found = evaluate_suite(module, suite, **few)
    folder = tmp_path / "runs" / "suite-small-v2-fgsm-n12"
    assert read_record(folder / "suite.json", SuiteResult) == found
    assert not found.failed
    assert not found.own_images
    [total] = found.totals
    results = [read_result(folder / str(each.row.folder)) for each in found.rows]
    mean = sum(result.robust.value for result in results) / 2
    assert share(total.robust_mean) == pytest.approx(mean)
    alone = evaluate(module, "digits", eps=0.05, labels=40, **few)
    assert results[1].robust == alone.robust
    assert results[1].examples == alone.examples
    with pytest.raises(UserError, match="eps is for the suite small"):
        evaluate_suite(module, suite, eps=0.1, **few)  # type: ignore[call-arg]


def test_images_that_are_not_here_are_told_before_any_work(
    tmp_path: Path, call: Any
) -> None:
    text = SUITE + "  - {name: cars, dataset: cifar10-jpeg+kinds, eps: 0.05}\n"
    (tmp_path / "lacking.yaml").write_text(text)
    (tmp_path / "empty").mkdir()
    code, out, err = call(
        *(
            "--suite",
            "lacking.yaml",
            "--model",
            "zoo:tarrl-digits",
            "--battery",
            "fgsm",
        ),
        *("--data-dir", "empty", "--output", "place"),
    )
    assert (code, out) == (2, "")
    assert "the suite small needs images that cannot be read: " in err
    assert "'cifar10-jpeg'" in err
    assert not (tmp_path / "place").exists()


def test_two_modules_of_one_class_are_two_models(tmp_path: Path, call: Any) -> None:
    torch.manual_seed(1)
    modules = [nn.Sequential(nn.Flatten(), nn.Linear(64, 8)) for _ in range(2)]
    few: Any = {"attacks": "fgsm", "limit": 12, "measure": ()}
    found = evaluate_suite(modules, "small.yaml", output=tmp_path / "two", **few)
    assert [total.models for total in found.totals] == [["model-1"], ["model-2"]]
    assert [beside.name for beside in found.beside] == ["model-2"]
    for module, total in zip(modules, found.totals, strict=True):
        place = tmp_path / total.name
        [alone] = evaluate_suite(module, "small.yaml", output=place, **few).totals
        assert total.robust_mean == alone.robust_mean
        assert total.clean_mean == alone.clean_mean
        assert total.name in found.to_text().splitlines()


def test_without_attack_nothing_is_called_robust(tmp_path: Path, call: Any) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    found = evaluate_suite(
        [module, nn.Sequential(module)], "small.yaml", attacks="none", limit=12
    )
    for total in found.totals:
        assert total.clean_mean.value > 0
        assert (total.robust_mean, total.robust_worst_task) == (None, None)
    assert found.beside[0].robust is None
    assert "robust  mean" not in found.to_text()
    assert SuiteResult.model_validate_json(found.model_dump_json()) == found


def test_a_table_of_something_else_is_not_replaced(tmp_path: Path, call: Any) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    few: Any = {"attacks": "fgsm", "measure": (), "output": tmp_path / "place"}
    evaluate_suite(module, "small.yaml", limit=12, **few)
    before = (tmp_path / "place" / "suite.json").read_bytes()
    others: list[tuple[dict[str, Any], str]] = [
        ({"limit": 13}, "12 images, not of .*13 images"),
        ({"limit": 12, "probe": "slf-r"}, "not of .*SLF-R"),
        ({"limit": 12, "attacks": "none"}, "not of .*none"),
    ]
    for other, message in others:
        with pytest.raises(UserError, match=message):
            evaluate_suite(module, "small.yaml", **{**few, **other})
    failed = evaluate_suite(module, "small.yaml", limit=12, seed=1, **few)
    assert (len(failed.failed), failed.rows) == (2, [])
    assert (tmp_path / "place" / "suite.json").read_bytes() == before


def test_a_table_of_before_knows_its_protocol_by_its_rows(
    tmp_path: Path, call: Any
) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    few: Any = {"attacks": "fgsm", "measure": (), "limit": 12, "probe": "slf-r"}
    found = evaluate_suite(module, "small.yaml", output=tmp_path / "old", **few)
    path = tmp_path / "old" / "suite.json"
    content = json.loads(path.read_text())
    assert content.pop("probe") == "SLF-R"
    path.write_text(json.dumps(content))
    assert read_record(path, SuiteResult).title == found.title
    again = evaluate_suite(module, "small.yaml", output=tmp_path / "old", **few)
    assert again == found


def test_two_folders_of_one_name_are_refused(tmp_path: Path, call: Any) -> None:
    """Their images would be drawn as if they were the same ones."""
    folders = [tmp_path / name / "photos" for name in "ab"]
    text = SUITE.replace("digits+parity", f"imagefolder:{folders[0]}")
    text = text.replace("dataset: digits,", f"dataset: 'imagefolder:{folders[1]}',")
    for folder in folders:
        for split, label in itertools.product(("train", "test"), "xy"):
            place = folder / split / label
            place.mkdir(parents=True)
            for at in range(4):
                Image.new("L", (8, 8), at).save(place / f"{at}.png")
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match="would both be called"):
        evaluate_suite("zoo:tarrl-digits", "own.yaml", output=tmp_path / "out")


def test_what_is_stopped_leaves_the_table_of_what_is_finished(
    tmp_path: Path, call: Any
) -> None:
    def stop(stage: str) -> None:
        if stage.startswith("evaluation 2 of 2"):
            raise KeyboardInterrupt

    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    few: Any = {"attacks": "fgsm", "limit": 6, "measure": ()}
    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(module, "small.yaml", on_stage=stop, **few)
    folder = tmp_path / "runs" / "suite-small-v2-fgsm-n6"
    left = read_record(folder / "suite.json", SuiteResult)
    assert [each.task for each in left.rows] == ["parity"]
    assert (left.missing, left.totals, left.failed) == (1, [], [])
    told = "1 of 2 evaluations, the same command goes on"
    assert told in (folder / "suite.md").read_text()
    found = evaluate_suite(module, "small.yaml", **few)
    assert found.rows[:1] == left.rows
    assert (found.missing, len(found.rows)) == (0, 2)
    assert "goes on" not in (folder / "suite.md").read_text()


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ((), {}, "no model to evaluate"),
        ([], {}, "no model to evaluate"),
        (("zoo:tarrl-digits",) * 2, {}, "'zoo:tarrl-digits' is named twice"),
        (("zoo:tarrl-digits", "zoo:no"), {}, "has no encoder 'no'"),
        ("zoo:tarrl-digits", {"eps": 0}, "--eps is for the suite"),
        ("zoo:tarrl-digits", {"limit": 0}, "limit"),
        ("zoo:tarrl-digits", {"resize": 9}, "--resize is for the suite"),
        ("zoo:tarrl-digits", {"classes": 9}, "--classes is for the suite"),
    ],
)
def test_words_of_python_that_a_suite_does_not_take(
    models: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    output = tmp_path / "suite"
    with pytest.raises(UserError, match=re.escape(message)):
        evaluate_suite(models, "digits", output=output, **options)
    assert not output.exists()


def test_a_suite_by_its_path_and_a_file_in_the_place_of_its_folder(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="no such file"):
        evaluate_suite("zoo:tarrl-digits", tmp_path / "own.yaml")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is no folder"):
        evaluate_suite("zoo:tarrl-digits", "digits", output=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"# My notes\n", None])
def test_what_is_no_table_is_not_replaced(
    tmp_path: Path, content: bytes | None
) -> None:
    place = tmp_path / "suite.md"
    if content is None:
        place.mkdir()
    else:
        place.write_bytes(content)
    with pytest.raises(UserError, match="none of robrep's; move it"):
        evaluate_suite("zoo:tarrl-digits", "digits", output=tmp_path)
    assert content is None or place.read_bytes() == content
