"""An encoder: input normalisation and backbone in one module, with its description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from zoo import architectures, budgets
from zoo.errors import UserError
from zoo.files import read_tensors, write_tensors

METADATA_KEY = "robrep.encoder"
Side = Annotated[int, Field(gt=0, le=4096)]


class EncoderSpec(BaseModel):
    """All that is needed, with the weights, to rebuild an encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str
    """A name in `zoo.architectures`, `timm:NAME`, `transformers:TYPE` or
    `open_clip:image`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the architecture, all of them (stem padding among them)."""
    shape: tuple[Side, Side, Side]
    """Channels, height and width of the images it was trained on."""
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.0,)
    """Subtracted per channel (one number serves all channels); pixels in [0, 1]."""
    std: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...] = (1.0,)
    """Divides per channel after the mean."""


class Described(BaseModel):
    """What stands beside the weights in a file."""

    spec: EncoderSpec
    digest: list[float]
    """As `feature_digest` gave it when the file was written."""


class Encoder(nn.Module):
    """g: images (N, C, H, W), float32 in [0, 1], to features (N, dim).

    Normalisation lives inside, so attacks and eps act on raw pixels.

    Args:
        spec: What to build; weights are fresh until loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        channels = spec.shape[0]
        if len(spec.mean) not in (1, channels) or len(spec.std) not in (1, channels):
            raise UserError(
                f"mean {spec.mean} and std {spec.std} must each be one number, or one "
                f"for each of {channels} channel(s)"
            )
        options = architectures.resolve_options(spec.arch, spec.options)
        self.spec = spec.model_copy(update={"options": options})
        self.backbone = architectures.build(spec.arch, spec.shape, options)
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            buffer = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @property
    def dim(self) -> int:
        """Number of features."""
        return int(self.backbone.dim)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone((x - self.mean) / self.std)  # type: ignore[no-any-return]


def test_pattern(shape: tuple[int, int, int]) -> Tensor:
    """Two fixed images (2, C, H, W) that exercise every pixel; no random generator."""
    count = 2 * shape[0] * shape[1] * shape[2]
    wave = torch.sin(torch.arange(count, dtype=torch.float64) * 12.9898) * 0.5 + 0.5
    return wave.float().view(2, *shape)


def feature_digest(encoder: Encoder) -> list[float]:
    """Eight numbers that change when the function changes though shapes do not.

    A wrong stem padding, batch-norm set or normalisation loads without complaint;
    comparing these on load catches it.
    """
    was_training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    with torch.no_grad():
        features = encoder(test_pattern(encoder.spec.shape).to(device)).double()
    encoder.train(was_training)
    return [float(v) for v in features.flatten()[:: max(1, features.numel() // 8)][:8]]


def fingerprint(module: nn.Module) -> str:
    """Hex SHA-256 over names, shapes and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    spec = getattr(module, "spec", None)
    if isinstance(spec, BaseModel):
        digest.update(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode())
    return digest.hexdigest()


def halve(encoder: Encoder) -> None:
    """Rounds weights of two and more dimensions to float16, in place.

    They stay float32, and `save_encoder` can then store them in half the bytes.

    Raises:
        UserError: a weight is too large for float16.
    """
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if _large(tensor):
                tensor.copy_(tensor.half())
                if not bool(tensor.isfinite().all()):
                    raise UserError(f"{name} holds numbers too large for float16")


def _large(tensor: Tensor) -> bool:
    """Weights of convolutions, linear layers and embeddings, no statistics."""
    return tensor.is_floating_point() and tensor.ndim > 1


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Writes weights and description to one safetensors file, atomically.

    Large weights are stored as float16 where all of them are of that precision.
    """
    state = encoder.state_dict()
    large = {k: v.half() for k, v in state.items() if _large(v)}
    if all(torch.equal(half.to(state[k].dtype), state[k]) for k, half in large.items()):
        state = {**state, **large}
    described = Described(spec=encoder.spec, digest=feature_digest(encoder))
    metadata = {METADATA_KEY: described.model_dump(mode="json")}
    write_tensors(path, state, metadata)


def load_encoder(path: Path) -> Encoder:
    """Rebuilds what `save_encoder` wrote, in eval mode, and checks that it is the same.

    Raises:
        UserError: no such file; not safetensors; written by something else (pass an
            architecture instead); weights that do not fit; NaN; features that differ
            from those stored.
    """
    tensors, metadata = read_tensors(path)
    if METADATA_KEY not in metadata:
        raise UserError(
            f"{path} does not say which encoder it holds; name it with --arch"
        )
    with describing(path):
        described = Described.model_validate(metadata[METADATA_KEY])
        encoder = build_described(described.spec, tensors)
    load_weights(encoder, tensors, source=str(path))
    stored = torch.tensor(described.digest, dtype=torch.float64)
    found = torch.tensor(feature_digest(encoder), dtype=torch.float64)
    if not bool(found.isfinite().all()):
        raise UserError(f"{path}: the features of the encoder are not finite")
    if stored.shape != found.shape or not torch.allclose(
        stored, found, rtol=1e-3, atol=1e-3 * float(found.abs().max())
    ):
        raise UserError(
            f"{path}: the features of the rebuilt encoder differ from those stored "
            "with it; the file was altered, or the architecture has changed"
        )
    return encoder.eval()


def build_described(spec: EncoderSpec, tensors: Mapping[str, Tensor]) -> Encoder:
    """The encoder of a description that came with these weights, not loaded yet.

    Raises:
        BudgetError: larger than its weights, or too large to run once.
    """
    budgets.check_shape(spec.shape)
    with budgets.building(sum(tensor.numel() for tensor in tensors.values())):
        encoder = Encoder(spec)
    own = not spec.arch.startswith(architectures.FOREIGN)
    if not (own and budgets.surely_small(encoder, spec.shape)):
        budgets.check_activations(encoder, spec.shape)
    return encoder


@contextmanager
def describing(path: object) -> Iterator[None]:
    """Blames `path` if a module cannot be built as its description says."""
    try:
        yield
    except budgets.BudgetError as error:
        raise budgets.BudgetError(f"{path} is refused: {error}") from None
    except UserError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} has a broken description: {where}: {first['msg']}"
        ) from None
    except Exception as error:
        # Sizes that no memory holds, numbers where texts belong: torch says it late.
        reason = budgets.plain_reason(error)
        raise UserError(f"{path} has a broken description: {reason}") from None


def _fits(own: Tensor, value: Tensor) -> bool:
    """Whether a copy keeps what numbers mean: real stays real, whole stays whole."""
    whole = not (own.is_floating_point() or own.is_complex() or own.is_quantized)
    return value.is_floating_point() or (whole and not value.is_complex())


def load_weights(module: nn.Module, tensors: dict[str, Tensor], *, source: str) -> None:
    """Copies weights strictly: every key, every shape, no NaN.

    Raises:
        UserError: says which keys are missing, unexpected, misshapen or not finite.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - own.keys())
    shapes = sorted(
        f"{k} is {tuple(tensors[k].shape)}, not {tuple(own[k].shape)}"
        for k in own.keys() & tensors.keys()
        if own[k].shape != tensors[k].shape
    )
    faults = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
    }
    if any(faults.values()):
        parts = [
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"
            for kind, keys in faults.items()
            if keys
        ]
        raise UserError(
            f"the weights of {source} do not fit the architecture: {'; '.join(parts)}"
        )
    odd = [key for key, value in tensors.items() if not _fits(own[key], value)]
    if odd:
        raise UserError(
            f"the weights of {source} hold {tensors[odd[0]].dtype} in {odd[0]}, where "
            f"{own[odd[0]].dtype} belongs"
        )
    broken = [
        key
        for key, value in tensors.items()
        if not bool(value.isfinite().all() & value.to(own[key].dtype).isfinite().all())
    ]
    if broken:
        raise UserError(
            f"the weights of {source} hold NaN or infinity in {broken[0]} "
            f"({len(broken)} tensors); they cannot be evaluated"
        )
    module.load_state_dict(tensors)
