"""An entry on ten thousand images and the bundle made from it, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from zoo_collection import card_of, tiny_encoder

from robrep_eval import evaluate
from zoo import datasets
from zoo.classifier import Classifier, predict
from zoo.collection.publish import Publication, publish
from zoo.collection.sources import FolderSource
from zoo.datasets.base import Dataset
from zoo.datasets.registry import DatasetInfo, registry
from zoo.encoder import save_encoder
from zoo.evidence import check_adversarials
from zoo.files import sha256_file, write_tensors
from zoo.records import AttackRun, Evidence, Outcome, Result, write_record
from zoo.result_file import write_result
from zoo.submission.bundle import submit
from zoo.submission.info import Paper
from zoo.verdicts import clean_accuracy, mean_per_class, robust_accuracy, verdicts
from zoo.verification import load_named_classifier

PAPER = Paper(
    title="Task-Agnostic Robust Encodings",
    authors="Ada Müller-Lüdenscheidt, Grace B. Hopper",
    link="https://arxiv.org/abs/2203.07596",
    venue="arXiv, Mar 2022",
)
NAME = "Muller-Ludenscheidt2022Task_TINY-8"


@dataclass(frozen=True)
class Prepared:
    """An entry on ten thousand images, and its bundle."""

    root: Path
    bundle: Path
    result: Result


def on_all_images(result: Result, classifier: Classifier, data: Dataset) -> Result:
    """The same record for the whole test set, without any attack."""
    found = predict(classifier, data.images(slice(None))).argmax(dim=1).tolist()
    examples = result.examples.model_copy(
        update={
            "index": list(range(len(data))),
            "label": data.labels.tolist(),
            "clean_prediction": found,
            "outcomes": {},
        }
    )
    images = result.dataset.model_copy(
        update={"n": len(data), "sha256": data.fingerprint()}
    )
    return result.model_copy(
        update={
            "dataset": images,
            "examples": examples,
            "clean": clean_accuracy(examples),
        }
    )


def attack_once(result: Result, folder: Path) -> Result:
    """Adds one step of signed gradient on the first thousand images, as APGD-CE.

    Real adversarials, really checked, only found by less than AutoAttack, which would
    take hours here; the other three attacks are said to have found nothing more.
    """
    classifier = load_named_classifier(folder, result)
    data = datasets.load("cifar10", "test")
    result = on_all_images(result, classifier, data)
    x, y = data.images(slice(1000)), data.labels[:1000]
    x.requires_grad_()
    loss = nn.functional.cross_entropy(classifier(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    x = x.detach()
    x_adv = (x + result.threat.eps * gradient.sign()).clamp(0, 1)
    correct = torch.tensor(result.examples.clean_prediction) == data.labels
    fooled = check_adversarials(classifier, x, x_adv, y, result.threat).fooled
    fooled &= correct[:1000]
    rows = fooled.nonzero().flatten()
    first: list[Outcome] = [
        Outcome.HELD if c else Outcome.SKIPPED for c in correct.tolist()
    ]
    for row in rows.tolist():
        first[row] = Outcome.FOOLED
    later: list[Outcome] = [
        Outcome.SKIPPED if o is Outcome.FOOLED else o for o in first
    ]
    names = ("apgd-ce", "apgd-t", "fab-t", "square")
    outcomes: dict[str, list[Outcome]] = {
        name: later if at else first for at, name in enumerate(names)
    }
    examples = result.examples.model_copy(update={"outcomes": outcomes})
    examples = examples.model_copy(update={"verdict": verdicts(examples)})
    robust = robust_accuracy(examples)
    runs = [
        AttackRun(
            name=name,
            engine="pyautoattack 0.2.0",
            sequence=True,
            parameters={"version": "standard", "batch": "the survivors of the chunk"},
            attempted=sum(o is not Outcome.SKIPPED for o in outcomes[name]),
            fooled=outcomes[name].count(Outcome.FOOLED),
            refused=0,
            undecided=0,
            robust=robust,
            seconds=1.0,
        )
        for name in names
    ]
    path = folder / "adversarials.safetensors"
    write_tensors(
        path,
        {
            "positions": rows,
            "attack": torch.zeros(len(rows), dtype=torch.int64),
            "images": x_adv[rows],
        },
        {},
    )
    evidence = Evidence(
        file=path.name,
        file_sha256=sha256_file(path),
        count=len(rows),
        tolerance=result.threat.tolerance(result.dataset.shape),
    )
    changed = result.model_copy(
        update={
            "examples": examples,
            "attacks": runs,
            "robust": robust,
            "per_class": mean_per_class(examples),
            "battery": "standard",
            "engine": "reference",
            "evidence": evidence,
        }
    )
    write_result(folder, changed)
    return changed


def prepare(root: Path) -> Prepared:
    """Evaluates, publishes and bundles under `root`."""
    registry()["cifar10"], usual = (
        DatasetInfo(
            name="cifar10",
            read="fake_cifar:read",
            shape=(3, 32, 32),
            classes=10,
            summary="made up",
        ),
        registry()["cifar10"],
    )
    try:
        encoder = tiny_encoder(0, (3, 32, 32))
        folder = root / "tiny-cifar10"
        save_encoder(encoder, folder / "model.safetensors")
        card = card_of(encoder, folder.name, folder / "model.safetensors")
        write_record(folder / "card.json", card)
        plain = evaluate(
            str(folder / "model.safetensors"),
            dataset="cifar10",
            eps="8/255",
            attacks="none",
            limit=20,
            measure=(),
            output=root / "run",
        )
        result = attack_once(plain, root / "run")
        publish(Publication(runs=[root / "run"]), str(root / "zoo"))
        bundle = submit(
            FolderSource(root / "zoo"),
            "tiny-cifar10/cifar10-linf8-slf-v2",
            PAPER,
            output=root / "bundle",
            variant="TINY-8",
        )
        assert bundle.missing == []
        assert bundle.name == NAME
    finally:
        registry()["cifar10"] = usual
    return Prepared(root, root / "bundle", result)
