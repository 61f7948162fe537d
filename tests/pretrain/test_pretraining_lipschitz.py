"""The Lipschitz encoder: its loss by hand, its weights by SVD, its command."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.lipschitz import (
    LipschitzSettings,
    build,
    command,
    distance_contrast,
    plain,
    train,
)
from zoo.commands.shell import run
from zoo.encoder import load_encoder
from zoo.errors import UserError
from zoo.files import sha256_file
from zoo.records import Card, read_record


def test_the_loss_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3))
    temperature = 0.7
    points = np.concatenate([a, b])
    losses = []
    for i, anchor in enumerate(points):
        partner = (i + 5) % 10
        terms = {
            j: math.exp(-float(((anchor - other) ** 2).sum()) / temperature)
            for j, other in enumerate(points)
            if j != i
        }
        losses.append(-math.log(terms[partner] / sum(terms.values())))
    found = distance_contrast(torch.tensor(a), torch.tensor(b), temperature)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-12)


def norms(encoder: torch.nn.Module) -> list[float]:
    """Largest singular value of each layer, by numpy."""
    return [
        float(np.linalg.svd(weight.double().numpy(), compute_uv=False)[0])
        for name, weight in encoder.state_dict().items()
        if name.endswith("weight")
    ]


def test_plain_weights_are_the_same_function_and_stretch_nothing() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build(16, (12, 8))
        x = torch.rand(50, 1, 4, 4)
        model(x)
    encoder = plain(model.eval(), (1, 4, 4), (12, 8))
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model(x), rtol=0, atol=1e-5)
    assert len(norms(encoder)) == 2
    assert all(0.99 < norm <= 1 for norm in norms(encoder))


def test_training_separates_images_and_a_seed_fixes_it() -> None:
    small = {"widths": (32, 16)}
    before, first = train(LipschitzSettings(epochs=1, **small))  # type: ignore[arg-type]
    encoder, last = train(LipschitzSettings(epochs=4, **small))  # type: ignore[arg-type]
    assert last < first - 0.02
    again, _ = train(LipschitzSettings(epochs=1, **small))  # type: ignore[arg-type]
    for one, two in zip(before.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert all(norm <= 1 for norm in norms(encoder))


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pretrain.lipschitz", *words])
    with pytest.raises(SystemExit) as stopped:
        run(command, "python -m pretrain.lipschitz")
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_the_command_writes_weights_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, str(tmp_path / "made"), "--epochs", "1") == 0
    card = read_record(tmp_path / "made" / "card.json", Card)
    weights = tmp_path / "made" / card.weights
    assert card.sha256 == sha256_file(weights)
    assert (card.training.epochs, card.training.labels) == (1, False)
    assert card.dim == load_encoder(weights).dim == 128


def test_a_folder_that_cannot_be_is_refused_before_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    assert call(monkeypatch, str(tmp_path / "file" / "made")) == 2
    assert "name another folder" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("words", [["--epochs", "0"], ["--epochs", "x"]])
def test_bad_values_leave_nothing_behind(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, str(tmp_path / "made"), *words) == 2
    assert "epochs" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_without_torchlip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deel", None)
    with pytest.raises(UserError, match=r"robrep\[lipschitz\]"):
        build(16, (8,))
