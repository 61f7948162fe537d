"""A user's own images in every form, and options that would do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import torch
from PIL import Image
from test_user_script import TEST, TRAIN, X, Y, module
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from robrep_eval import evaluate, fit_probe
from robrep_eval.run.plan import prepare
from robrep_eval.run.request import Request
from zoo import UserError
from zoo.encoder import Encoder, EncoderSpec, save_encoder

QUICK: dict[str, Any] = {"eps": 0.1, "attacks": "fgsm", "measure": ()}
BYTES = (X * 255).round().to(torch.uint8)


class Pictures:
    """As torchvision's datasets are without a transform."""

    classes = tuple(map(str, range(10)))

    def __init__(self, part: slice) -> None:
        self.x, self.y = BYTES[part, 0].numpy(), Y[part]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.x[at]), int(self.y[at])


class Split(Pictures):
    """As Hugging Face `datasets` gives it: columns by name, and their types."""

    column_names = ("image", "label")

    class Image:
        """The type of the column."""

    class ClassLabel:
        """The type of the other."""

        names = tuple(map(str, range(10)))

    features = {"image": Image(), "label": ClassLabel()}  # noqa: RUF012

    def __getitem__(self, at: int) -> Any:
        image, label = super().__getitem__(at)
        return {"image": image, "label": label}


def hugging_face(part: slice) -> Any:
    """A real one, where that library is installed."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=[str(i) for i in range(10)]),
    )
    rows = [Pictures(part)[i] for i in range(len(Pictures(part)))]
    columns = {"image": [r[0] for r in rows], "label": [r[1] for r in rows]}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("form", [Pictures, Split, hugging_face])
def test_pictures_are_the_images_of_their_bytes(form: Callable[[slice], Any]) -> None:
    found = evaluate(module(64), form(TEST), train=form(TRAIN), **QUICK)
    pair = (BYTES[TEST], Y[TEST])
    wanted = evaluate(module(64), pair, train=(BYTES[TRAIN], Y[TRAIN]), **QUICK)
    assert found.examples == wanted.examples
    assert found.clean.k > 18


@pytest.mark.slow
@pytest.mark.parametrize("probe", ["alf", "aff"])
def test_adversarial_probes_on_ones_own_module(probe: str) -> None:
    own = module(16)
    before = [p.detach().clone() for p in own.parameters()]
    train = (X[200:264], Y[200:264])
    result = evaluate(own, (X[TEST], Y[TEST]), train=train, probe=probe, **QUICK)
    assert result.probe is not None
    assert result.probe.protocol == probe.upper()
    assert all(torch.equal(p, b) for p, b in zip(own.parameters(), before, strict=True))


def darker(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A `collate_fn` that does something to the images."""
    x, y = zip(*items, strict=True)
    return torch.stack(x) / 2, torch.stack(y)


def test_what_a_loader_makes_of_its_items_is_what_is_measured() -> None:
    data = TensorDataset(X[TEST], Y[TEST])
    train = (X[TRAIN] / 2, Y[TRAIN])
    loader = DataLoader(data, 8, collate_fn=darker)
    found = evaluate(module(64), loader, train=train, **QUICK)
    wanted = evaluate(module(64), (X[TEST] / 2, Y[TEST]), train=train, **QUICK)
    assert found.dataset.sha256 == wanted.dataset.sha256
    named = DataLoader(data, 8, collate_fn=lambda items: {"x": items})
    with pytest.raises(UserError, match=r"collate_fn .* makes a dict"):
        evaluate(module(64), named, train=train, **QUICK)


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("encoder", {"mean": 0.5}, "mean is for"),
        ("encoder", {"std": 0.5}, "std is for"),
        ("encoder", {"kind": "features"}, "kind is for"),
        ("encoder", {"arch": "resnet_s8"}, "arch is for"),
        ("zoo:tarrl-digits", {"normalize": "0.5/0.5"}, "mean is for"),
        ("zoo:tarrl-digits", {"prefix": "model"}, "prefix is for"),
        ("zoo:tarrl-digits", {"kind": "logits"}, "kind is for"),
        ("module", {"arch_options": {"width": 3}}, "arch_options is for"),
        ("module", {"kind": "feature"}, "kind must be"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    model: str, options: dict[str, Any], says: str
) -> None:
    at_hand: dict[str, Callable[[], torch.nn.Module]] = {
        "encoder": lambda: zoo.load("tarrl-digits"),
        "module": lambda: module(64),
    }
    made = at_hand[model]() if model in at_hand else model
    test, train = (X[TEST], Y[TEST]), (X[TRAIN], Y[TRAIN])
    with pytest.raises(UserError, match=says):
        evaluate(made, test, train=train, **options, **QUICK)


def test_a_probe_refuses_them_too() -> None:
    with pytest.raises(UserError, match="mean is for"):
        fit_probe(zoo.load("tarrl-digits"), (X[TRAIN], Y[TRAIN]), mean=0.5)


def test_images_far_from_what_the_module_was_told_are_flagged() -> None:
    """A module without batch norm cannot tell; the images can."""
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16))
    test, train = (X[TEST], Y[TEST]), (X[TRAIN], Y[TRAIN])
    none: dict[str, Any] = {"eps": 0.1, "attacks": "none", "measure": ()}

    def notes(mean: float, std: float) -> list[str]:
        return evaluate(own, test, train=train, mean=mean, std=std, **none).notes

    assert notes(mean=0.3, std=0.4) == []
    assert "standard deviation 3.7, not about 0 and 1" in notes(mean=0.3, std=0.1)[0]
    assert "have mean -2.4" in notes(mean=0.9, std=0.25)[0]


def test_names_of_options_are_checked_by_types_and_at_run_time() -> None:
    """mypy, strict, would call the comment unused if the call were well typed."""
    with pytest.raises(UserError, match="no option 'epz'; did you mean 'eps'"):
        evaluate("zoo:tarrl-digits", epz=0.1)  # type: ignore[call-arg]


def _rows() -> Iterator[int]:
    yield from range(3)


def test_an_iterator_is_no_dataset() -> None:
    with pytest.raises(UserError, match="type generator cannot be read"):
        evaluate(module(64), _rows(), train=(np.zeros((2, 1, 8, 8)), [0, 1]), eps=0.1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_channels_that_come_last_are_told(dtype: torch.dtype) -> None:
    images = torch.zeros(4, 8, 9, 3, dtype=dtype)
    module = nn.Sequential(nn.Flatten(), nn.Linear(216, 2))
    with pytest.raises(UserError, match=r"channels come first \(tensor.permute"):
        evaluate(module, (images, torch.tensor([0, 1, 0, 1])), eps=0.1, output=None)


def test_a_module_of_which_no_normalisation_is_known_is_spoken_of() -> None:
    """Unless it was said, be it that there is none, or a batch norm tells."""
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16))
    test, train = (X[TEST], Y[TEST]), (X[TRAIN], Y[TRAIN])

    def notes(own: torch.nn.Module, **more: Any) -> list[str]:
        none: dict[str, Any] = {"eps": 0.1, "attacks": "none", "measure": ()}
        return evaluate(own, test, train=train, **none, **more).notes

    (note,) = notes(plain)
    assert note.startswith("No normalisation was given for module:Sequential (mean=")
    assert notes(plain, mean=0.0, std=1.0) == notes(module(64)) == []


NET = "timm:test_efficientnet"
UNSAID = "No normalisation was given for"


def _saved(folder: Path) -> Path:
    """A network with random weights as a checkpoint, beside it as a file of robrep's,
    which has mean and deviation inside."""
    torch.manual_seed(0)
    spec = EncoderSpec(arch=NET, shape=(3, 8, 8), mean=(0.5,), std=(0.25,))
    encoder = Encoder(spec).eval()
    save_encoder(encoder, folder / "net.safetensors")
    torch.save(encoder.backbone.state_dict(), folder / "net.pt")
    return folder / "net.pt"


def test_a_checkpoint_of_which_none_is_known_is_spoken_of(tmp_path: Path) -> None:
    path = _saved(tmp_path)

    def unsaid(file: Path, **more: Any) -> list[str]:
        fields: dict[str, Any] = {"dataset": "digits@3x8x8", "eps": 0.1, "limit": 4}
        found = prepare(Request(model=str(file), **fields, **more)).notes
        return [note for note in found if note.startswith(UNSAID)]

    (note,) = unsaid(path, arch=NET)
    assert f"{path} (--normalize)" in note
    assert unsaid(path, arch=NET, mean=(0.5,), std=(0.25,)) == []
    assert unsaid(path, arch=NET, mean=(0.0,), std=(1.0,)) == []
    assert unsaid(path.with_name("net.safetensors")) == []


@pytest.mark.slow
def test_the_command_says_so_at_the_beginning_and_below_the_table(
    tmp_path: Path,
) -> None:
    code, out, err = commands.run(
        *("robrep_eval", "--model", str(_saved(tmp_path)), "--arch", NET),
        *("--dataset", "digits@3x8x8", "--labels", "50", "--eps", "0.1"),
        *("--attacks", "none", "--health", "none", "--no-bound", "--limit", "4"),
        *("--output", str(tmp_path / "run")),
    )
    assert code == 0, err
    assert (err.count(UNSAID), out.count(UNSAID)) == (1, 1)
