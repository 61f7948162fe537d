"""Encoders: architectures, files that rebuild them, and files that must not load."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from zoo import architectures
from zoo.classifier import Classifier
from zoo.classifier_file import load_classifier, save_classifier
from zoo.encoder import (
    METADATA_KEY,
    Encoder,
    EncoderSpec,
    fingerprint,
    halve,
    load_encoder,
    save_encoder,
)
from zoo.errors import UserError
from zoo.files import read_tensors, write_tensors

SHAPES = {
    "resnet18": (3, 32, 32),
    "preact_resnet18": (3, 32, 32),
    "wide_resnet_28_10": (3, 32, 32),
    "resnet_s8": (1, 8, 8),
    "resnet_s28": (1, 28, 28),
    "resnet_s32": (3, 32, 32),
    "resnet_s8_grid": (1, 8, 8),
    "resnet_s28_grid": (1, 28, 28),
    "resnet_s32_grid": (3, 32, 32),
}


def _small(**options: object) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(
        EncoderSpec(
            arch="resnet_s8_grid" if "grid" in options else "resnet_s8",
            options={"widths": [4, 8], "blocks": [1, 1], **options},
            shape=(1, 8, 8),
            mean=(0.5,),
            std=(0.25,),
        )
    )
    return encoder.eval()


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_architecture_gives_plain_features(name: str) -> None:
    assert set(SHAPES) <= set(architectures.registry())
    encoder = Encoder(EncoderSpec(arch=name, shape=SHAPES[name])).eval()
    with torch.no_grad():
        z = encoder(torch.rand(2, *SHAPES[name]))
    assert z.shape == (2, encoder.dim)


def test_cells_average_to_the_global_features() -> None:
    whole, cells = _small(), _small(grid=2)
    cells.load_state_dict(whole.state_dict())
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        z, z_cells = whole(x), cells(x)
    assert z_cells.shape == (3, 4 * whole.dim) == (3, cells.dim)
    torch.testing.assert_close(z_cells.view(3, whole.dim, 4).mean(dim=2), z)
    with pytest.raises(UserError, match="grid must be 1 or more"):
        _small(grid=0)


def test_resnet18_costs_what_the_literature_counts() -> None:
    encoder = Encoder(EncoderSpec(arch="resnet18", shape=(3, 32, 32)))
    assert _multiply_adds(encoder) == pytest.approx(555.4e6, rel=1e-3)
    padded = Encoder(
        EncoderSpec(arch="resnet18", options={"stem_padding": 2}, shape=(3, 32, 32))
    )
    assert _multiply_adds(padded) == pytest.approx(703.6e6, rel=1e-3)


def _multiply_adds(encoder: Encoder) -> int:
    total = 0

    def count(module: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, torch.nn.Conv2d)
        total += out[0].numel() * module.weight[0].numel()

    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        encoder(torch.rand(2, *encoder.spec.shape))
    return total


def test_normalisation_lives_inside() -> None:
    encoder = _small()
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(encoder(x), encoder.backbone((x - 0.5) / 0.25))


def test_saved_encoder_is_rebuilt_bit_by_bit(tmp_path: Path) -> None:
    encoder = _small()
    save_encoder(encoder, tmp_path / "e.safetensors")
    again = load_encoder(tmp_path / "e.safetensors")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(encoder(x), again(x))
    assert fingerprint(encoder) == fingerprint(again)
    assert not again.training
    assert list(tmp_path.iterdir()) == [tmp_path / "e.safetensors"]


def test_weights_of_half_precision_take_half_the_bytes(tmp_path: Path) -> None:
    encoder = _small()
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_encoder(encoder, whole)
    exact = fingerprint(encoder)
    halve(encoder)
    assert fingerprint(encoder) != exact
    save_encoder(encoder, half)
    assert fingerprint(load_encoder(half)) == fingerprint(encoder)
    large = sum(p.numel() for p in encoder.parameters() if p.ndim > 1)
    saved = whole.stat().st_size - half.stat().st_size
    assert saved == pytest.approx(2 * large, abs=100)
    before, after = load_encoder(whole).state_dict(), encoder.state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-3, atol=1e-7)
    with torch.no_grad():
        next(p for p in encoder.parameters() if p.ndim > 1)[0] = 1e6
    with pytest.raises(UserError, match="too large for float16"):
        halve(encoder)


def test_wrong_function_with_right_shapes_is_noticed(tmp_path: Path) -> None:
    """Stem padding changes features but no weight shape; loading must not be silent."""
    encoder = Encoder(EncoderSpec(arch="resnet18", shape=(3, 32, 32))).eval()
    path = tmp_path / "e.safetensors"
    save_encoder(encoder, path)
    tensors, metadata = read_tensors(path)
    metadata[METADATA_KEY]["spec"]["options"]["stem_padding"] = 2
    write_tensors(path, tensors, metadata)
    with pytest.raises(UserError, match="features of the rebuilt encoder differ"):
        load_encoder(path)


def _break_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.conv1.weight"][0] = torch.nan


def _break_missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["backbone.bn1.weight"]


def _break_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.bn1.weight"] = torch.ones(5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_break_nan, "NaN or infinity in backbone.conv1.weight"),
        (_break_missing, "1 missing .backbone.bn1.weight"),
        (_break_shape, r"backbone.bn1.weight is \(5,\), not \(4,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, damage: object, message: str
) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(_small(), path)
    tensors, metadata = read_tensors(path)
    damage(tensors)  # type: ignore[operator]
    write_tensors(path, tensors, metadata)
    with pytest.raises(UserError, match=message):
        load_encoder(path)


def test_foreign_and_truncated_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(_small(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a safetensors file"):
        load_encoder(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="name it with --arch"):
        load_encoder(path)
    with pytest.raises(UserError, match="no file"):
        load_encoder(tmp_path / "none.safetensors")


def test_unknown_names_and_options_give_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        architectures.get("resnet81")
    with pytest.raises(UserError, match="no option 'stem_paddin'; did you mean"):
        architectures.resolve_options("resnet18", {"stem_paddin": 2})
    with pytest.raises(UserError, match="timm has no model 'resnet_18x'"):
        Encoder(EncoderSpec(arch="timm:resnet_18x", shape=(3, 32, 32)))


def test_timm_models_are_encoders(tmp_path: Path) -> None:
    encoder = Encoder(
        EncoderSpec(arch="timm:resnet18", options={"resize": 64}, shape=(3, 32, 32))
    ).eval()
    save_encoder(encoder, tmp_path / "t.safetensors")
    again = load_encoder(tmp_path / "t.safetensors")
    x = torch.rand(1, 3, 32, 32)
    assert again(x).shape == (1, 512)
    assert torch.equal(encoder(x), again(x))


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "mobilenetv3_small_050", "vgg11", "lcnet_050", "ghostnet_050"),
        *("hgnetv2_b0", "vit_tiny_patch16_224", "convnext_atto", "densenet121"),
    ],
)
def test_features_of_timm_models_are_counted_by_a_pass(name: str) -> None:
    """Not taken from `num_features`, which five of these state wrongly."""
    options = {"resize": 224} if name.startswith("vit") else {}
    spec = EncoderSpec(arch=f"timm:{name}", options=options, shape=(3, 64, 64))
    encoder = Encoder(spec)
    assert encoder.training
    with torch.no_grad():
        z = encoder.eval()(torch.rand(1, *spec.shape))
    assert z.shape == (1, encoder.dim)


def test_counting_features_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSpec(arch="timm:resnet18", shape=(3, 64, 64)))
    drawn = torch.rand(3)
    torch.manual_seed(0)
    alone = timm.create_model("resnet18", num_classes=0).state_dict()
    assert torch.equal(torch.rand(3), drawn), "no random numbers are used up"
    counted = encoder.backbone.model.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(alone[key], counted[key]) for key in alone)


def test_a_linear_end_knows_how_wide_a_timm_model_is() -> None:
    options = {"linear_end": 700}
    arch = "timm:mobilenetv3_small_050"
    ended = Encoder(EncoderSpec(arch=arch, options=options, shape=(3, 32, 32))).eval()
    with torch.no_grad():
        assert ended(torch.rand(1, 3, 32, 32)).shape == (1, ended.dim) == (1, 700)


def test_images_that_a_timm_model_cannot_take_are_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"vit_tiny\S* cannot take .*\(3, 32, 32\)"):
        Encoder(EncoderSpec(arch="timm:vit_tiny_patch16_224", shape=(3, 32, 32)))


def test_classifier_file_rebuilds_encoder_and_head(tmp_path: Path) -> None:
    head = torch.nn.Linear(8, 3)
    classifier = Classifier(_small(), head, classes=3, shape=(1, 8, 8))
    save_classifier(classifier, tmp_path / "c.safetensors")
    again = load_classifier(tmp_path / "c.safetensors")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(classifier(x), again(x))
    assert fingerprint(again) == fingerprint(classifier)
    assert not any(p.requires_grad for p in again.parameters())
