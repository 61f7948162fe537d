"""State dicts in checkpoint files of others, read without running code from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without running code from it.

    Looks inside the usual wrappers ("state_dict", "model", ...), removes the prefixes
    of parallel training and renames torchvision's shortcuts to the names used here.

    Raises:
        UserError: pickled objects, truncated or foreign content, no tensors.
    """
    import torch

    from zoo.files import read_tensors

    if path.suffix == ".safetensors":
        content: object = read_tensors(path)[0]
    else:
        content = _torch_load(path)
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = (
        {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise UserError(f"{path} holds no state dict")
    return {_plain_key(key): value for key, value in tensors.items()}


def _plain_key(key: str) -> str:
    for prefix in ("module.", "model.", "encoder."):
        key = key.removeprefix(prefix)
    return key.replace(".downsample.", ".shortcut.")


def _torch_load(path: Path) -> object:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is not a plain state dict: it holds pickled objects or is damaged "
            "(loading those could run foreign code, so robrep refuses); save "
            "model.state_dict() instead"
        ) from None
    except KeyError:  # an opcode that pickle does not have
        raise UserError(
            f"{path} is not a readable checkpoint: torch.save did not write it"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or ["it ends too early"])[0]
        raise UserError(f"{path} is not a readable checkpoint: {reason}") from None
