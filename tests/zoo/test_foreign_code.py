"""Nothing foreign runs: every reader of other people's files, under an audit hook.

All readers run in one child process (`audited.py`), which notes what Python itself
reports: unpickled names, executed foreign text, files opened outside, processes.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import audited
import pytest
import serving
from test_entries import PLACE, rehash
from test_hostile import redescribe
from zoo_collection import ENTRY, Evaluated, card_of, tiny_encoder

from pretrain.cli import assemble
from pretrain.recipe import dump
from zoo import architectures, classifier_file, encoder
from zoo.collection.sources_web import WebSource
from zoo.encoder import Encoder, EncoderSpec
from zoo.errors import UserError
from zoo.files import read_json, sha256_file, write_json
from zoo.records import write_record

NAME = "tiny-digits"
CANARY = "foreign_canary_text"

Case = tuple[str | None, str]
"""What a refusal must say, or None if the command is to succeed; the command."""


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"{CANARY} = 1; open({str(self.mark)!r}, 'w').close()",)


@dataclass(frozen=True)
class Scene:
    """Folders of one walk."""

    root: Path
    evaluated: Evaluated

    @property
    def secret(self) -> Path:
        """Outside of everything that a reader has to do with."""
        return self.root / "secret" / "payload.bin"

    def hostile(self, name: str, payload: Path) -> Path:
        """A published collection whose encoder's description names a file.

        If there is none, the collection holds it and brings it there.
        """
        zoo = self.evaluated.copy(self.root / name)
        weights = zoo / NAME / "model.safetensors"
        redescribe(weights, encoder.METADATA_KEY, lambda d: lure(d["spec"], payload))
        changed = {"arch": "timm:lcnet_035", "dim": 512}
        card = card_of(tiny_encoder(), NAME, weights, **changed)
        write_record(zoo / NAME / "card.json", card)
        entry = read_json(zoo / PLACE / "entry.json")
        write_json(zoo / PLACE / "entry.json", {**entry, "weights_sha256": card.sha256})
        if not payload.is_file():
            shutil.copyfile(self.secret, zoo / NAME / "payload.bin")
        rehash(zoo)
        return zoo

    def run(self, name: str) -> Path:
        """An evaluation whose classifier's description does so."""
        run = self.root / name
        shutil.copytree(self.evaluated.run, run)
        path = run / "classifier.safetensors"
        redescribe(
            path, classifier_file.METADATA_KEY, lambda d: lure(d["spec"], self.secret)
        )
        result = read_json(run / "result.json")
        result["model"]["file_sha256"] = sha256_file(path)
        write_json(run / "result.json", result)
        return run

    def pretraining(self) -> Path:
        """A run of a recipe of robrep's own, with a checkpoint that is a pickle."""
        run = self.root / "pretraining"
        run.mkdir()
        recipe = assemble("simclr-digits", {}, ())
        (run / "recipe.yaml").write_text(dump(recipe))
        shutil.copyfile(self.secret, run / "checkpoint.pt")
        return run

    def recipe(self) -> Path:
        """YAML that builds Python objects where it is let."""
        path = self.root / "out" / "recipe.yaml"
        path.write_text(f"name: !!python/object/apply:builtins.exec ['{CANARY}']\n")
        return path

    def cifar(self) -> Path:
        """Pickles under the names of CIFAR-10's."""
        folder = self.root / "out" / "cifar-10-batches-py"
        folder.mkdir()
        names = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
        for name in (*names, "batches.meta"):
            shutil.copyfile(self.secret, folder / name)
        return folder.parent


def lure(spec: dict[str, Any], payload: Path) -> None:
    """Makes a description name a file to be read."""
    options = {"checkpoint_path": str(payload)}
    spec.update(arch="timm:lcnet_035", options=options)


def cases(scene: Scene, url: str) -> dict[str, Case]:
    """Every reader of files that others may have written."""
    aside = scene.hostile("aside", scene.secret)
    inside = scene.hostile("inside", scene.root / "inside" / NAME / "payload.bin")
    run, unfinished = scene.run("run"), scene.run("unfinished")
    (unfinished / "result.json").unlink()
    weights, out = aside / NAME / "model.safetensors", scene.root / "out"
    pickled = out / "model.pt"
    shutil.copyfile(scene.secret, pickled)
    sound = scene.evaluated
    refused = "no option of timm's architectures"
    lcnet = "arch=timm:lcnet_035"
    made = f"--eps 0.02 --attacks fgsm --limit 8 --dataset digits --output {out}/new"
    paper = "--title T --authors A --link L --venue V"
    return {
        "a sound collection": (None, f"zoo verify --all --source {sound.published}"),
        "a sound run": (None, f"eval verify {sound.run}"),
        "zoo.load": (refused, f"load {NAME} {aside}"),
        "list": (None, f"zoo list --source {aside}"),
        "show": (None, f"zoo show {NAME} --source {aside}"),
        "download": (None, f"zoo download {NAME} --source {url}"),
        "verify": ("do not hold", f"zoo verify --all --source {aside}"),
        "verify, own payload": ("do not hold", f"zoo verify --all --source {inside}"),
        "verify over HTTP": ("do not hold", f"zoo verify {NAME} --source {url}"),
        "leaderboard": (None, f"zoo leaderboard --verify --source {inside}"),
        "publish encoder": (refused, f"zoo publish {aside / NAME} --to {out}/zoo"),
        "publish run": (refused, f"zoo publish {run} --to {out}/zoo --source {aside}"),
        "submit": (
            refused,
            f"zoo submit --robustbench {NAME}/{ENTRY} --source {inside} {paper}",
        ),
        "import": (
            "pickled objects",
            f"zoo import {pickled} --format acl --name x --to {out}",
        ),
        "evaluate a file": (refused, f"eval --model {weights} {made}"),
        "evaluate a folder": (refused, f"eval --model {aside / NAME} {made}"),
        "evaluate a classifier": (
            refused,
            f"eval --model {run}/classifier.safetensors {made}",
        ),
        "evaluate a pickle": (
            "pickled objects",
            f"eval --model {pickled} --arch resnet_s8 {made}",
        ),
        "options as typed": (
            refused,
            (
                f"eval --model {weights} --arch timm:lcnet_035 "
                f"--arch-option checkpoint_path={scene.secret} {made}"
            ),
        ),
        "images in pickles": (
            "its MD5 is not that of cifar10's file",
            (
                f"offline eval --model {sound.plain / NAME} --dataset cifar10 "
                f"--data-dir {scene.cifar()}"
            ),
        ),
        "resume": (
            refused,
            (
                f"eval --model zoo:{NAME} --eps 0.02 --attacks fgsm,pgd --limit 60 "
                f"--output {unfinished}"
            ),
        ),
        "verify a run": (refused, f"eval verify {run}"),
        "report": (None, f"eval report {run}"),
        "compare": (None, f"eval compare {run} {sound.run}"),
        "pretrain by a recipe": ("not valid YAML", f"pretrain {scene.recipe()}"),
        "pretrain, foreign options": (
            refused,
            (
                f"pretrain simclr-digits --output {out}/never -o {lcnet} "
                f"-o arch_options.checkpoint_path={scene.secret}"
            ),
        ),
        "pretrain, foreign teacher": (
            refused,
            f"pretrain deacl-digits -o teacher={weights} --output {out}/never",
        ),
        "resume pretraining": (
            "cannot be read",
            f"pretrain simclr-digits --output {scene.pretraining()} -q",
        ),
        # What the hook must see, or all of the above would prove nothing.
        "seen: unpickling": ("", f"misdeed unpickle {pickled}"),
        "seen: execution": ("", f"misdeed execute {CANARY}=1"),
        "seen: a file": ("", f"misdeed open {scene.secret}"),
        "seen: a process": ("", "misdeed start python"),
    }


@pytest.fixture(scope="module")
def walk(
    evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Case], dict[str, Any]]:
    """The cases, and what the child noted of each."""
    scene = Scene(tmp_path_factory.mktemp("foreign"), evaluated)
    for name in ("secret", "out", "home", "tmp", "user", "work"):
        (scene.root / name).mkdir()
    scene.secret.write_bytes(pickle.dumps(Payload(scene.root / "secret" / "mark")))
    patch = pytest.MonkeyPatch()
    patch.setenv("ROBREP_HOME", str(scene.root / "home"))
    with serving.serving(scene.root / "served") as server:
        # The payload comes with the collection: where it will lie can be foretold.
        cached = WebSource(server.url).cache / NAME / "payload.bin"
        scene.hostile("served", cached)
        chosen = cases(scene, server.url)
        noted = in_child(
            scene, {name: words.split() for name, (_, words) in chosen.items()}
        )
    patch.undo()
    return chosen, noted


def in_child(scene: Scene, words: dict[str, list[str]]) -> dict[str, Any]:
    plan, log = scene.root / "tmp" / "plan.json", scene.root / "tmp" / "log.json"
    folders = ["out", "home", "tmp", "user", "work", "aside", "inside"]
    folders += ["run", "unfinished", "pretraining"]
    roots = [scene.root / name for name in folders]
    found = scene.evaluated
    roots += [found.plain, found.run, found.published]
    content = {"roots": [str(r.resolve()) for r in roots], "canary": CANARY}
    plan.write_text(json.dumps({**content, "cases": words}))
    environment = {
        **os.environ,
        "ROBREP_ZOO": str(found.plain),
        "ROBREP_HOME": str(scene.root / "home"),
        "HF_HOME": str(scene.root / "home"),
        "HOME": str(scene.root / "user"),
        "TMPDIR": str(scene.root / "tmp"),
    }
    subprocess.run(
        [sys.executable, audited.__file__, str(plan), str(log)],
        cwd=scene.root / "work",
        env=environment,
        check=True,
    )
    noted: dict[str, Any] = json.loads(log.read_text())
    return noted


def test_no_reader_runs_foreign_code(walk: Any) -> None:
    cases, noted = walk
    faults = []
    for name, (reason, _) in cases.items():
        code, said, seen = (noted[name][key] for key in ("code", "said", "events"))
        if name.startswith("seen:"):
            continue
        faults += [f"{name}: {event}" for event in seen]
        clear = code == 0 if reason is None else code in (1, 2) and reason in said
        if not clear:
            faults.append(f"{name}: exit code {code}: {said}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("seen: unpickling", "unpickled builtins.exec"),
        ("seen: execution", "compile of foreign text"),
        ("seen: a file", "opened "),
        ("seen: a process", f"started {sys.executable}"),
    ],
)
def test_the_hook_sees(walk: Any, name: str, event: str) -> None:
    assert any(seen.startswith(event) for seen in walk[1][name]["events"])


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("timm:lcnet_035", {"checkpoint_path": "x"}),
        ("timm:lcnet_035", {"pretrained": True}),
        ("timm:lcnet_035", {"pretrained_cfg": {"file": "x"}}),
        ("timm:lcnet_035", {"pretrained_cfg": "ra2_in1k"}),
        ("timm:lcnet_035", {"pretrained_cfg_overlay": {"file": "x"}}),
        ("timm:lcnet_035", {"pretrained_strict": False}),
        ("timm:lcnet_035", {"cache_dir": "x"}),
        ("timm:lcnet_035", {"features_only": True}),
        ("timm:lcnet_035", {"feature_cfg": {"feature_cls": "fx"}}),
        ("timm:lcnet_035", {"pruned": True}),
        ("timm:lcnet_035", {"scriptable": True}),
        ("timm:lcnet_035", {"exportable": True}),
        ("timm:lcnet_035", {"no_jit": True}),
        ("timm:lcnet_035", {"num_classes": 10}),
        ("timm:lcnet_035", {"linear_end": 8, "checkpoint_path": "x"}),
        ("timm:lcnet_035", {"act_layer": "../x"}),
        ("timm:lcnet_035", {"act_layer": "os.system"}),
        ("timm:lcnet_035", {"act_layer": {"a": 1}}),
        ("timm:lcnet_035", {"act_layer": "unknown"}),
        ("timm:lcnet_035", {"drop_rate": [[[0.1]]]}),
        ("timm:lcnet_035", {"depths": [1] * 65}),
        ("timm:hf-hub:org/model", {}),
        ("timm:hf_hub:org/model", {}),
        ("timm:local-dir:/tmp/model", {}),
        ("timm:timm/lcnet_035", {}),
        ("timm:/tmp/lcnet_035", {}),
        ("timm:lcnet_035.x/../vgg11", {}),
        ("timm:lcnet_035?x", {}),
        ("timm:lcnet_035\n", {}),
        ("timm:https://example.invalid/lcnet_035", {}),
        ("resnet18", {"stem": "/tmp/x"}),
        ("resnet18", {"stem": {"a": 1}}),
        ("resnet18", {"checkpoint_path": "x"}),
    ],
)
def test_only_options_of_the_architecture(arch: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Encoder(EncoderSpec(arch=arch, options=options, shape=(3, 32, 32)))


@pytest.mark.parametrize(
    "options", [{}, {"drop_rate": 0.1}, {"act_layer": "gelu"}, {"resize": 64}]
)
def test_what_the_architecture_takes_is_passed_on(options: dict[str, Any]) -> None:
    spec = EncoderSpec(arch="timm:lcnet_035", options=options, shape=(3, 32, 32))
    made = Encoder(spec).backbone
    gelu = any(type(part).__name__ == "GELU" for part in made.modules())
    assert gelu is ("act_layer" in options)
    assert getattr(made.model, "drop_rate", None) == options.get("drop_rate", 0.0)
    assert made.resize == options.get("resize")


def test_a_tag_of_weights_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    made = architectures.build("timm:resnet18.a1_in1k", (3, 32, 32), {})
    assert made.dim == 512
