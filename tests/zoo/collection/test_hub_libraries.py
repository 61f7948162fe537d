"""Image encoders of transformers and open_clip from a hub on this machine.

The reference is the library itself, reading the same files. Models are tiny.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hub_stub
import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from zoo.collection.references import LoadOptions, load
from zoo.encoder import Encoder, load_encoder, save_encoder
from zoo.errors import UserError

SIDE = 32
PHOTO = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
TINY: dict[str, dict[str, Any]] = {
    "vit": {"patch_size": 16},
    "deit": {"patch_size": 16},
    "dinov2": {"patch_size": 16},
    "dinov2_with_registers": {"patch_size": 16, "num_register_tokens": 2},
    "dinov3_vit": {"patch_size": 16, "num_register_tokens": 2},
    "dinov3_convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "convnextv2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "swin": {
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "window_size": 4,
        "patch_size": 4,
    },
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    },
    "clip_vision_model": {"patch_size": 16},
    "siglip_vision_model": {"patch_size": 16},
}
TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
PROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2],
    "rescale_factor": 1 / 255,
    "resample": 3,
    "size": {"height": SIDE, "width": SIDE},
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_stub.Hub]:
    monkeypatch.delenv("ROBREP_ZOO", raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache")
    )
    with hub_stub.hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def encoder(side: int = SIDE, reference: str = "hf://org/mine") -> Encoder:
    found = load(reference, LoadOptions(shape=(3, side, side), classes=10)).encoder
    assert found is not None
    assert not found.training
    return found


def saved(model: Any, folder: Path) -> dict[str, bytes]:
    """As the library itself saves it, with an image processor beside it."""
    model.save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"preprocessor_config.json": json.dumps(PROCESSOR).encode()}


def made(name: str, head: bool = False) -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {} if "hidden_sizes" in TINY[name] or name == "swin" else TRANSFORMER
    config = transformers.AutoConfig.for_model(
        name, **sizes, **TINY[name], image_size=SIDE
    )
    torch.manual_seed(0)
    build = (
        transformers.AutoModelForImageClassification if head else transformers.AutoModel
    )
    model = build.from_config(config)
    with torch.no_grad():
        for value in model.parameters():  # layer scales near 0 would hide mistakes
            value.copy_(torch.randn_like(value) * 0.3)
    return model.eval()


def normalised(x: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(PROCESSOR[key]).view(3, 1, 1)
        for key in ("image_mean", "image_std")
    )
    return (x - mean) / std


@pytest.mark.parametrize("name", TINY)
def test_a_model_of_transformers(hub: hub_stub.Hub, tmp_path: Path, name: str) -> None:
    model = made(name)
    hub.commits["org/mine"] = [saved(model, tmp_path / "hf")]
    found = encoder()
    assert found.spec.arch == f"transformers:{name}"
    with torch.no_grad():
        out = model(pixel_values=normalised(PHOTO))
        token = name in ("vit", "deit")
        wanted = out.last_hidden_state[:, 0] if token else out.pooler_output.flatten(1)
        torch.testing.assert_close(found(PHOTO), wanted)
    assert found.dim == wanted.shape[1]
    save_encoder(found, tmp_path / "e.safetensors")
    again = load_encoder(tmp_path / "e.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again(PHOTO), found(PHOTO))


@pytest.mark.parametrize("name", ["vit", "dinov2", "convnext", "swin", "resnet"])
def test_classifiers_give_the_features_below_their_head(
    hub: hub_stub.Hub, tmp_path: Path, name: str
) -> None:
    whole = made(name, head=True)
    hub.commits["org/mine"] = [saved(whole, tmp_path / "hf")]
    seen: list[Tensor] = []
    layers = [m for m in whole.modules() if isinstance(m, torch.nn.Linear)]
    layers[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = encoder()
    with torch.no_grad():
        whole(pixel_values=normalised(PHOTO))
        # DINOv2's own classifier also sees the mean over patches
        torch.testing.assert_close(found(PHOTO), seen[0].flatten(1)[:, : found.dim])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_image_tower_of_a_pair(
    hub: hub_stub.Hub, tmp_path: Path, kind: str
) -> None:
    transformers = pytest.importorskip("transformers")
    text = {**TRANSFORMER, "vocab_size": 9, "max_position_embeddings": 4}
    vision = {**TRANSFORMER, "patch_size": 16, "image_size": SIDE}
    config = transformers.AutoConfig.for_model(
        kind, text_config=text, vision_config=vision
    )
    model = transformers.AutoModel.from_config(config).eval()
    hub.commits["org/mine"] = [saved(model, tmp_path / "hf")]
    found = encoder()
    assert found.spec.arch == f"transformers:{kind}_vision_model"
    with torch.no_grad():
        wanted = model.vision_model(pixel_values=normalised(PHOTO)).pooler_output
        torch.testing.assert_close(found(PHOTO), wanted)


def test_images_reach_the_model_as_its_processor_would_bring_them(
    hub: hub_stub.Hub, tmp_path: Path
) -> None:
    """Against the library's own processor on a photograph of another size."""
    transformers = pytest.importorskip("transformers")
    from PIL import Image

    files = saved(made("vit"), tmp_path / "hf")
    hub.commits["org/mine"] = [files]
    (tmp_path / "hf" / "preprocessor_config.json").write_bytes(
        files["preprocessor_config.json"]
    )
    found = encoder(48)
    assert found.spec.options["resize"] == SIDE
    assert found.spec.options["resample"] == "bicubic"
    assert found.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    ramp = torch.linspace(20, 230, 48 * 48 * 3).view(48, 48, 3).to(torch.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    theirs = processor(Image.fromarray(ramp.numpy()), return_tensors="pt")
    reached: list[Tensor] = []
    model = found.backbone.model
    assert isinstance(model, torch.nn.Module)
    model.register_forward_pre_hook(
        lambda _, args, kwargs: reached.append(kwargs["pixel_values"]), with_kwargs=True
    )
    with torch.no_grad():
        found(ramp.permute(2, 0, 1)[None] / 255)
    # Pillow and torchvision round to bytes on the way: one of 255 each, over std.
    assert float((reached[0] - theirs["pixel_values"]).abs().max()) < 2 / 255 / 0.2


def test_a_crop_is_the_size_that_the_network_sees(
    hub: hub_stub.Hub, tmp_path: Path
) -> None:
    files = saved(made("dinov2"), tmp_path / "hf")
    changed = {
        **PROCESSOR,
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
    }
    files["preprocessor_config.json"] = json.dumps(changed).encode()
    hub.commits["org/mine"] = [files]
    assert "resize" not in encoder().spec.options
    assert encoder(48).spec.options["resize"] == SIDE


def _json(name: str, **change: Any) -> Callable[[dict[str, bytes]], None]:
    def spoil(files: dict[str, bytes]) -> None:
        files[name] = json.dumps({**json.loads(files[name]), **change}).encode()

    return spoil


def _pickled(files: dict[str, bytes]) -> None:
    files["pytorch_model.bin"] = files.pop("model.safetensors")


def _no_processor(files: dict[str, bytes]) -> None:
    del files["preprocessor_config.json"]


def _fewer(files: dict[str, bytes]) -> None:
    path = Path("weights.safetensors")
    path.write_bytes(files["model.safetensors"])
    state = load_file(path)
    key = next(key for key in state if key.endswith("query.weight"))
    del state[key]
    files["model.safetensors"] = save(state, {"format": "pt"})


CONFIG = "config.json"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_pickled, "robrep reads safetensors files alone"),
        (_no_processor, "no preprocessor_config.json"),
        (_fewer, "lacks 1 weights"),
        (_json(CONFIG, model_type="bert"), "no features from 'bert'"),
        (
            _json(CONFIG, model_type="mine", auto_map={"AutoModel": "m.M"}),
            "no features",
        ),
        (_json(CONFIG, hidden_size=60000, num_attention_heads=1), "more weights than"),
        (_json(CONFIG, hidden_act="../../x"), "must be a number"),
        (_json(CONFIG, hidden_act="nothing"), "cannot build transformers:vit"),
        (_json("preprocessor_config.json", rescale_factor=1.0), "another scale"),
        (_json("preprocessor_config.json", image_std=[0, 0, 0]), "std"),
    ],
)
def test_repositories_that_do_not_hold_what_they_say(
    hub: hub_stub.Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[dict[str, bytes]], None],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = saved(made("vit"), tmp_path / "hf")
    spoil(files)
    hub.commits["org/mine"] = [files]
    with pytest.raises(UserError, match=says):
        encoder()


def test_what_a_description_asks_for_beside_sizes_is_not_done(
    hub: hub_stub.Hub, tmp_path: Path
) -> None:
    """Kernels from hubs, code of the repository, quantisation, other models."""
    files = saved(made("vit"), tmp_path / "hf")
    more = {
        "attn_implementation": "org/kernel",
        "_attn_implementation": "org/kernel",
        "auto_map": {"AutoModel": "code.Model"},
        "quantization_config": {"quant_method": "bitsandbytes"},
        "_name_or_path": "/etc/passwd",
    }
    _json(CONFIG, **more)(files)
    hub.commits["org/mine"] = [{**files, "code.py": b"raise SystemExit(3)"}]
    found = encoder()
    assert not found.spec.options.keys() & more.keys()
    with pytest.raises(UserError, match="colour images, not 1"):
        load("hf://org/mine", LoadOptions(shape=(1, SIDE, SIDE), classes=10))


VISION = {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 16}
TEXT = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1}


def clip_files(**vision: Any) -> tuple[Any, dict[str, bytes]]:
    """As open_clip's `push_to_hf_hub` writes them."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    whole = open_clip.CLIP(24, {**VISION, **vision}, TEXT).eval()
    described = {
        "model_cfg": {
            "embed_dim": 24,
            "vision_cfg": {**VISION, **vision},
            "text_cfg": TEXT,
        },
        "preprocess_cfg": {
            "mean": PROCESSOR["image_mean"],
            "std": PROCESSOR["image_std"],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    state = {key: value.clone() for key, value in whole.state_dict().items()}
    return whole, {
        "open_clip_config.json": json.dumps(described).encode(),
        "open_clip_model.safetensors": save(state),
    }


@pytest.mark.parametrize(
    "vision",
    [
        {},
        {"timm_model_name": "test_vit", "timm_pool": "", "image_size": 160},
    ],
)
def test_an_image_tower_of_open_clip(
    hub: hub_stub.Hub, tmp_path: Path, vision: dict[str, Any]
) -> None:
    whole, files = clip_files(**vision)
    hub.commits["org/mine"] = [files]
    side = vision.get("image_size", SIDE)
    found = encoder(side)
    x = torch.rand(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(found(x), whole.encode_image(normalised(x)))
    assert found.dim == 24
    save_encoder(found, tmp_path / "e.safetensors")
    with torch.no_grad():
        again = load_encoder(tmp_path / "e.safetensors")
        torch.testing.assert_close(again(x), found(x))
    assert encoder(48).spec.options["resample"] == "bicubic"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("timm_model_name", "hf-hub:org/other", "must be|no name of a timm model"),
        ("timm_custom", 1, "no option of"),
        ("layers", 3, "missing"),
        ("width", 60032, "more weights than the file"),
    ],
)
def test_image_towers_that_are_none(
    hub: hub_stub.Hub, key: str, value: object, says: str
) -> None:
    _, files = clip_files()
    described = json.loads(files["open_clip_config.json"])
    described["model_cfg"]["vision_cfg"][key] = value
    files["open_clip_config.json"] = json.dumps(described).encode()
    hub.commits["org/mine"] = [files]
    with pytest.raises(UserError, match=says):
        encoder()
