"""A user's script: own module, own loader, and the public interface alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset

from robrep_eval import evaluate, fit_probe
from zoo import UserError, VerificationError, verify_folder

IMAGES, LABELS = load_digits(return_X_y=True)
X = torch.tensor(IMAGES).reshape(-1, 1, 8, 8).float() / 16
Y = torch.tensor(LABELS)
TRAIN, TEST = slice(200, 700), slice(0, 24)


class Mine(nn.Module):
    """Half-frozen on purpose: robrep must leave it as it was."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(288, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class Random:
    """Augments, so that no two passes see the same images."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        return torch.rand(1, 8, 8), at


class BadOutput(nn.Module):
    """Feature maps."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def module(width: int, *, mean: float = 0.0, std: float = 1.0) -> Mine:
    """Its batch norm has seen the digits, normalised like this."""
    torch.manual_seed(0)
    made = Mine(width)
    for _ in range(50):
        made((X[TRAIN] - mean) / std)
    return made


@pytest.fixture(scope="module")
def loaders() -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    data = TensorDataset(X, Y)
    train, test = Subset(data, range(200, 700)), Subset(data, range(24))
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, 32)


def test_own_module_and_loader_from_start_to_verified(
    loaders: tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]],
    tmp_path: Path,
) -> None:
    train, test = loaders
    own = module(64)
    before = {k: v.clone() for k, v in own.state_dict().items()}

    def run() -> str:
        result = evaluate(
            own,
            test,
            train=train,
            eps=0.1,
            attacks=["fgsm"],
            measure=(),
            seed=1,
            batch_size=16,
            output=str(tmp_path / "run"),
        )
        assert result.model.reference == "module:Mine"
        assert (result.dataset.name, result.dataset.classes) == ("own", 10)
        assert result.seed == 1
        assert result.clean.k > 18
        assert result.notes == []
        return result.model_dump_json()

    assert run() == run()  # the second goes on with the folder
    assert own.training
    assert all(p.requires_grad for p in own.parameters())
    assert all(torch.equal(v, before[k]) for k, v in own.state_dict().items())
    other = module(64).double().float()
    assert verify_folder(tmp_path / "run", model=other, dataset=test)
    with pytest.raises(UserError, match="model=module"):
        verify_folder(tmp_path / "run", dataset=test)
    with pytest.raises(UserError, match="do not fit"):
        verify_folder(tmp_path / "run", model=module(65), dataset=test)
    with pytest.raises(VerificationError, match="SHA-256"):
        verify_folder(tmp_path / "run", model=own, dataset=(X[1:25], Y[1:25]))


def test_the_code_of_a_module_is_part_of_the_run(tmp_path: Path) -> None:
    own = module(64)
    options: dict[str, Any] = {
        "train": (X[TRAIN], Y[TRAIN]),
        "eps": 0.1,
        "attacks": "fgsm",
    }
    evaluate(own, (X[TEST], Y[TEST]), **options, measure=(), output=tmp_path / "run")
    own.net[2] = nn.GELU()
    with pytest.raises(UserError, match="holds another evaluation"):
        evaluate(
            own, (X[TEST], Y[TEST]), **options, measure=(), output=tmp_path / "run"
        )


def test_logits_are_taken_as_they_are() -> None:
    """Fitted here, by torch alone; the clean figure is counted by hand."""
    own = module(10)
    optimiser = torch.optim.Adam(own.parameters(), 0.01)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(own((X[TRAIN] - 0.3) / 0.4), Y[TRAIN]).backward()
        optimiser.step()
    data = (X[TEST].numpy(), Y[TEST].numpy())
    options: dict[str, Any] = {
        "eps": "0.1",
        "attacks": "fgsm",
        "measure": (),
        "classes": 10,
    }
    result = evaluate(own, data, kind="logits", mean=[0.3], std=0.4, **options)
    with torch.no_grad():
        right = own.eval()((X[TEST] - 0.3) / 0.4).argmax(1) == Y[TEST]
    assert result.probe is None
    assert result.clean.k == int(right.sum()) > 18
    with pytest.raises(UserError, match="kind='logits' or kind='features'"):
        evaluate(own, data, **options)


def test_pixels_of_another_scale_are_flagged() -> None:
    own = module(64, mean=0.3, std=0.1)
    pair, train = (X[TEST], Y[TEST]), (X[TRAIN], Y[TRAIN])
    found = {
        std: evaluate(
            own,
            pair,
            train=train,
            eps=0.1,
            attacks="none",
            measure=(),
            mean=0.3,
            std=std,
        ).notes
        for std in (1.0, 0.1)
    }
    assert found[0.1] == []
    assert "mean= and std=" in found[1.0][0]


def test_bytes_and_floats_are_the_same_images() -> None:
    grey = (X * 255).round().to(torch.uint8)
    options: dict[str, Any] = {"eps": 0.1, "attacks": "fgsm", "measure": ()}
    a, b = (
        evaluate(
            module(64),
            (x[TEST], Y[TEST]),
            train=(x[TRAIN], Y[TRAIN]),
            **options,
        )
        for x in (grey, grey.float() / 255)
    )
    assert a.examples == b.examples


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: 5, "type int cannot be read"),
        (lambda: (X[:5] * 255, Y[:5]), "not \\[0, 1\\]"),
        (lambda: (X[:5, 0], Y[:5]), "shape"),
        (lambda: (X[:5], Y[:4]), "4 labels"),
        (lambda: TensorDataset(X[:5]), "not a pair"),
        (lambda: [(X[0], 0), (X[0, :, :4], 1), (X[1], 1)], "image 1 is"),
        (
            lambda: DataLoader(TensorDataset(X, Y), sampler=SubsetRandomSampler([1])),
            "Subset",
        ),
        (lambda: Random(), "differs when it is read again"),
    ],
)
def test_bad_images_are_told(bad: Callable[[], object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        evaluate(module(64), bad(), train=(X, Y), eps=0.1)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (BadOutput(), "pool or flatten"),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 3)), "fails on images"),
        (object(), "the model is a object"),
    ],
)
def test_bad_modules_are_told(own: nn.Module, says: str) -> None:
    with pytest.raises(UserError, match=says):
        evaluate(own, (X[TEST], Y[TEST]), train=(X, Y), eps=0.1)


def test_a_probe_on_features_of_ones_own_module() -> None:
    own = module(64)
    classifier, record = fit_probe(own, (X[TRAIN], Y[TRAIN]), labels="50%", seed=1)
    with torch.no_grad():
        share = (classifier(X[TRAIN]).argmax(1) == Y[TRAIN]).float().mean()
    assert record.train_n == 250
    assert float(share) > 0.7
