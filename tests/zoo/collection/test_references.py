"""Model references: every form leads to the right weights, or says why not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from zoo.collection.references import LoadOptions, check, load, training_of
from zoo.collection.sources_embedded import EMBEDDED_FOLDER
from zoo.collection.state_file import read_state
from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.errors import UserError

DIGITS = LoadOptions(shape=(1, 8, 8), classes=10, arch="resnet_s8")


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSpec(arch="resnet_s8", shape=(1, 8, 8))).eval()


X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_zoo_names_lead_to_embedded_encoders_with_their_training() -> None:
    found = load("zoo:tarrl-digits", replace(DIGITS, arch=None))
    assert found.encoder is not None
    assert found.training is not None
    assert found.training.method == "tarrl"
    assert found.training.command is not None
    with pytest.raises(UserError, match="did you mean 'tarrl-digits'"):
        check("zoo:tarl-digits")
    with pytest.raises(UserError, match="did you mean 'zoo:tarrl-digits'"):
        check("tarrl-digits")


def test_files_of_our_own_need_no_architecture(
    encoder: Encoder, tmp_path: Path
) -> None:
    save_encoder(encoder, tmp_path / "e.safetensors")
    options = LoadOptions(shape=(1, 8, 8), classes=10)
    found = load(str(tmp_path / "e.safetensors"), options).encoder
    assert found is not None
    assert torch.equal(found(X), encoder(X))


def test_the_card_beside_a_file_tells_of_its_training_and_of_no_others(
    encoder: Encoder, tmp_path: Path
) -> None:
    described = EMBEDDED_FOLDER / "tarrl-digits"
    shutil.copytree(described, tmp_path, dirs_exist_ok=True)
    options = LoadOptions(shape=(1, 8, 8), classes=10)
    want = load("zoo:tarrl-digits", options)
    for reference in (str(tmp_path), str(tmp_path / "model.safetensors")):
        check(reference)
        found = load(reference, options)
        assert found.encoder is not None
        assert found.training == want.training == training_of(reference)
    save_encoder(encoder, tmp_path / "model.safetensors")
    assert load(str(tmp_path), options).training is None


def test_robustbench_models_load_through_their_own_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their architecture and loader, with a file where their download would put it."""
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    home = tmp_path / "home"
    monkeypatch.setenv("ROBREP_HOME", str(home))
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    row = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]["Wong2020Fast"]
    theirs = row["model"]().eval()
    options = LoadOptions(shape=(3, 32, 32), classes=10)
    with pytest.raises(UserError, match="offline mode is on"):
        load("robustbench:Wong2020Fast", options)
    folder = home / "robustbench" / "cifar10" / "Linf"
    folder.mkdir(parents=True)
    torch.save(theirs.state_dict(), folder / "Wong2020Fast.pt")
    found = load("robustbench:cifar10/Linf/Wong2020Fast", options).classifier
    assert found is not None
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(found(x), theirs(x))
    with pytest.raises(UserError, match="did you mean 'Wong2020Fast'"):
        load("robustbench:Wong2020Fas", options)


def test_timm_models_that_do_not_exist_give_the_nearest() -> None:
    options = LoadOptions(shape=(3, 32, 32), classes=10)
    with pytest.raises(UserError, match="timm has no pretrained weights 'resnet_18'"):
        load("timm:resnet_18", options)


def test_a_state_dict_in_no_known_wrapper_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state(tmp_path / "x.pt")
