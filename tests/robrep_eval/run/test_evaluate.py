"""The whole way: request to verified record, and every planted lie found out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from whole import read_whole, write_whole

from robrep_eval import evaluate, fit_probe, to_art
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset, from_tensors
from zoo.encoder import Encoder, EncoderSpec, load_encoder, save_encoder
from zoo.errors import UserError, VerificationError
from zoo.evidence_file import read_claims
from zoo.files import read_json, read_tensors, sha256_file, write_json, write_tensors
from zoo.records import Proportion, Verdict
from zoo.result_file import read_result
from zoo.verification import load_named_dataset, verify_folder


@pytest.fixture(scope="module")
def encoder_file(
    plain_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    save_encoder(encoder, path)
    return path


@pytest.fixture(scope="module")
def run_folder(encoder_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    evaluate(
        str(encoder_file),
        dataset="digits",
        eps="0.1",
        attacks="pgd,fgsm",
        limit=40,
        output=folder,
    )
    return folder


def test_the_record_says_what_was_seen(run_folder: Path, digits_test: Dataset) -> None:
    result = read_result(run_folder)
    assert (result.clean.n, result.robust.n) == (40, 40)
    assert result.robust.k < result.clean.k
    assert result.robust.k == sum(v is Verdict.ROBUST for v in result.examples.verdict)
    assert result.examples.index == list(range(40))
    assert result.examples.label == digits_test.labels[:40].tolist()
    assert result.probe is not None
    assert result.probe.train_n == 1437
    assert [run.name for run in result.attacks] == ["pgd", "fgsm"]
    worst = min(run.robust.k for run in result.attacks)
    assert result.robust.k <= worst
    assert result.provenance.versions["torch"]
    assert not (run_folder / "chunks").exists()


def test_an_honest_result_verifies(run_folder: Path) -> None:
    findings = verify_folder(run_folder)
    assert [f.check for f in findings] == [
        "dataset",
        "images",
        "task",
        "clean predictions",
        "evidence",
        "adversarials",
        "figures",
        "battery",
        "measurements",
        "labels",
    ]


def test_adversarials_of_an_earlier_robrep_verify_and_take_more_room(
    run_folder: Path, tmp_path: Path
) -> None:
    folder = _copy(run_folder, tmp_path / "copy")
    packed = (folder / CLAIMS).stat().st_size
    _change_tensor(CLAIMS, "images", lambda images: images)(folder)
    assert verify_folder(folder) == verify_folder(run_folder)
    assert packed < 0.7 * (folder / CLAIMS).stat().st_size


def _copy(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to))


def _set(*path: str | int, to: Any) -> Callable[[Path], None]:
    """A lie: one field of the record replaced."""

    def tell(folder: Path) -> None:
        record = read_whole(folder)
        place: Any = record
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        write_whole(folder, record)

    return tell


def share(k: int, n: int) -> dict[str, Any]:
    """A figure that is consistent in itself."""
    return Proportion.of(k, n).model_dump(mode="json")


CLAIMS = "adversarials.safetensors"


def _change_tensor(
    file: str, name: str, change: Callable[[Tensor], Tensor]
) -> Callable[[Path], None]:
    """A lie in a tensor, with the hash in the record brought in line.

    Adversarials named "images" are written as they were before they were packed.
    """

    def tell(folder: Path) -> None:
        path = folder / file
        tensors, metadata = read_tensors(path)
        if name == "images":
            result = read_result(folder)
            claims = read_claims(folder, result, load_named_dataset(result, None))
            tensors["images"] = claims.images[:]
            del tensors["stream"], tensors["ends"]
        tensors[name] = change(tensors[name])
        write_tensors(path, tensors, metadata)
        record = read_json(folder / "result.json")
        part = "evidence" if "adversarials" in file else "model"
        record[part]["file_sha256"] = sha256_file(path)
        write_json(folder / "result.json", record)

    return tell


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (_set("robust", to=share(39, 40)), "robust accuracy: stated"),
        (_set("clean", to=share(40, 40)), "clean accuracy: stated"),
        (_set("attacks", 0, "fooled", to=0), "size of the evidence"),
        (_set("attacks", 1, "robust", to=share(40, 40)), "robust accuracy under fgsm"),
        (_set("examples", "label", 0, to=9), "stated labels"),
        (_set("examples", "clean_prediction", 3, to=7), "clean predictions differ"),
        (_set("examples", "index", 0, to=41), "not those that were evaluated"),
        (_set("examples", "outcomes", "pgd", 0, to="fooled"), "adversarials for"),
        (_set("threat", "eps", to=0.01), "does not count: refused"),
        (_set("dataset", "sha256", to="0" * 64), "not those that were evaluated"),
        (_set("model", "weights_sha256", to="0" * 64), "not those that the result"),
        (_set("evidence", "file_sha256", to="0" * 64), "not the file the result names"),
        (_set("undecided", to=3), "undecided: stated 3"),
        (
            _change_tensor(CLAIMS, "images", lambda t: t + 0.05),
            "does not count: refused",
        ),
        (
            _change_tensor("classifier.safetensors", "head.bias", lambda t: t + 0.5),
            "not those that the result",
        ),
        (_change_tensor(CLAIMS, "images", lambda t: t.double()), "is torch.float64"),
        (_change_tensor(CLAIMS, "images", lambda t: t[:, 0]), "not float32 of shape"),
        (_change_tensor(CLAIMS, "stream", lambda t: t + 1), "is damaged"),
        (_change_tensor(CLAIMS, "stream", lambda t: t.int()), "is torch.int32"),
        (_change_tensor(CLAIMS, "stream", lambda t: t[1:]), "does not divide"),
        (_change_tensor(CLAIMS, "ends", lambda t: t.flip(0)), "does not divide"),
        (_change_tensor(CLAIMS, "ends", lambda t: t[None]), "'ends' is torch.int64 of"),
        (_change_tensor(CLAIMS, "attack", lambda t: t[1:]), "one for each image"),
        (_change_tensor(CLAIMS, "attack", lambda t: t + 7), "the result has"),
        (_change_tensor(CLAIMS, "positions", lambda t: -t - 1), "the result has"),
        (_change_tensor(CLAIMS, "positions", lambda t: t[None]), "not int64 of shape"),
        (_change_tensor(CLAIMS, "positions", lambda t: t.int()), "is torch.int32"),
    ],
)
def test_every_tampering_is_caught(
    run_folder: Path, tmp_path: Path, lie: Callable[[Path], None], message: str
) -> None:
    folder = _copy(run_folder, tmp_path / "copy")
    lie(folder)
    with pytest.raises(VerificationError, match=message):
        verify_folder(folder)


def test_missing_and_broken_files_are_named(run_folder: Path, tmp_path: Path) -> None:
    folder = _copy(run_folder, tmp_path / "copy")
    (folder / "adversarials.safetensors").unlink()
    with pytest.raises(UserError, match="evidence is missing"):
        verify_folder(folder)
    (folder / "result.json").write_text("{}")
    with pytest.raises(UserError, match="schema version None"):
        verify_folder(folder)


def test_the_same_request_finds_nothing_left_and_another_is_refused(
    run_folder: Path, encoder_file: Path
) -> None:
    said: list[str] = []
    request: dict[str, Any] = {"dataset": "digits", "limit": 40, "output": run_folder}
    before = (run_folder / "result.json").read_bytes()
    evaluate(
        str(encoder_file),
        eps=0.1,
        attacks="pgd,fgsm",
        on_stage=said.append,
        **request,
    )
    assert any("nothing left to do" in line for line in said)
    assert (run_folder / "result.json").read_bytes() == before
    with pytest.raises(UserError, match=r"another evaluation \(threat\.eps: 0\.1"):
        evaluate(str(encoder_file), eps=0.2, attacks="pgd,fgsm", **request)


def test_peoples_own_modules_and_tensors(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    data = from_tensors(
        digits_test.images(slice(20)),
        digits_test.labels[:20],
        name="mine",
        classes=digits_test.classes,
    )
    result = evaluate(plain_classifier, dataset=data, eps=0.1, attacks="fgsm")
    assert result.probe is None
    assert result.dataset.name == "mine"
    assert list(tmp_path.iterdir()) == []
    two = from_tensors(
        data.images(slice(None)), data.labels % 2, name="two", classes=["even", "odd"]
    )
    with pytest.raises(UserError, match="has 10 classes, but two has 2"):
        evaluate(plain_classifier, dataset=two, eps=0.1)


def test_a_classifier_has_as_many_logits_as_classes(digits_test: Dataset) -> None:
    with pytest.raises(UserError, match="head gives 7 logits, but there are 10"):
        Classifier(nn.Flatten(), nn.Linear(64, 7), classes=10, shape=(1, 8, 8))
    seven = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    for module in (seven, nn.Flatten(start_dim=2), nn.Flatten(start_dim=0)):
        stranger = Classifier(module, nn.Identity(), classes=10, shape=(1, 8, 8))
        with pytest.raises(UserError, match=r"gives \(.*\), not \(1, 10\); pass a"):
            evaluate(stranger, dataset=digits_test.take(5), eps=0.1)
        with pytest.raises(UserError, match=r"gives \(.*\), not \(1, 10\); pass a"):
            to_art(stranger)
    failing = Classifier(nn.Linear(5, 10), nn.Identity(), classes=10, shape=(1, 8, 8))
    with pytest.raises(UserError, match=r"fails on images of shape \(1, 1, 8, 8\)"):
        evaluate(failing, dataset=digits_test.take(5), eps=0.1)


def test_classes_mean_the_same_in_both_splits(
    encoder_file: Path, digits_train: Dataset, digits_test: Dataset
) -> None:
    def own(data: Dataset, classes: Sequence[str]) -> Dataset:
        x, y = data.images(slice(50)), data.labels[:50]
        return from_tensors(x, y, name="own", classes=classes)

    names = digits_test.classes
    encoder = load_encoder(encoder_file)
    for other, message in (
        ((*names[1:], names[0]), "class 0 is '1' and '0'"),
        ((*names, "ten"), "they have 11 and 10 classes"),
    ):
        train, test = own(digits_train, other), own(digits_test, names)
        with pytest.raises(UserError, match=message):
            evaluate(encoder, dataset=test, train=train, eps=0.1)
        with pytest.raises(UserError, match="differ: "):
            fit_probe(encoder, digits_train, test=own(digits_test, other))


@pytest.mark.slow
def test_an_image_folder_without_adversarials_is_verified_and_keeps_its_notes(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, level in (("cat", 40), ("dog", 120)):
            folder = tmp_path / "own" / split / name
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = rng.normal(level, 5, (8, 8)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "own" / "train" / "emu").mkdir()
    torch.manual_seed(0)
    encoder = Encoder(EncoderSpec(arch="resnet_s8", shape=(1, 8, 8)))
    said: list[str] = []
    result = evaluate(
        encoder,
        dataset=f"imagefolder:{tmp_path}/own",
        eps=0.0001,
        attacks="fgsm",
        output=tmp_path / "run",
        on_stage=said.append,
    )
    assert result.dataset.split == "val"
    assert result.clean.value == result.robust.value == 1
    assert verify_folder(tmp_path / "run")  # without any adversarial
    assert any("val was read in its place" in note for note in result.notes)
    assert sum("are no classes: emu" in line for line in said) == 1


@pytest.mark.slow
def test_results_do_not_depend_on_the_callers_random_state(
    plain_classifier: Classifier, digits_test: Dataset
) -> None:
    data = digits_test.subset(slice(20))
    one = evaluate(plain_classifier, dataset=data, eps=0.1, attacks="pgd")
    torch.manual_seed(99)
    two = evaluate(plain_classifier, dataset=data, eps=0.1, attacks="pgd")
    assert one.examples == two.examples


def test_defaults_need_a_dataset_and_a_radius(encoder_file: Path) -> None:
    with pytest.raises(UserError, match="name a dataset"):
        evaluate(str(encoder_file))
    with pytest.raises(UserError, match="name a radius for L1"):
        evaluate(str(encoder_file), dataset="digits", norm="L1")
