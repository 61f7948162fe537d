"""State dicts in checkpoint files of others, read without running code from them."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import budgets
from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without running code from it.

    Looks inside the usual wrappers ("state_dict", "model", ...); names stay as they
    are, those of several state dicts after the name of theirs and a dot.

    Raises:
        UserError: pickled objects, truncated or foreign content, no tensors.
    """
    from zoo.files import read_tensors

    if path.suffix == ".safetensors":
        content: object = read_tensors(path)[0]
    else:
        content = _torch_load(path)
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = _tensors(content) or _tensors(_opened(content))
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise UserError(f"{path} holds no state dict (tensors by name)")
    _check_tensors(path, list(tensors.values()))
    return tensors


def _tensors(content: object) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}


def _opened(content: object) -> dict[str, object]:
    """Several state dicts beside each other as one, names joined by dots."""
    if not isinstance(content, dict):
        return {}
    inner = [(k, v) for k, v in content.items() if isinstance(v, dict)]
    return {f"{k}.{name}": t for k, part in inner for name, t in part.items()}


def _torch_load(path: Path) -> object:
    import pickle

    import torch

    size = budgets.regular(path)
    with budgets.naming(path):
        budgets.check(size, budgets.TENSOR_BYTES, "bytes")
        budgets.check(_unpacked(path), max(size, 1 << 16), "bytes when unpacked")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle, of files that are none
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_pickled(path, str(error))) from None
    except EOFError:
        raise UserError(
            f"{path} is not a readable checkpoint: it ends too early"
        ) from None
    except (RuntimeError, OSError, ValueError) as error:
        reason = budgets.plain_reason(error)
        raise UserError(f"{path} is not a readable checkpoint: {reason}") from None
    except Exception:  # a damaged pickle fails in all ways there are
        raise UserError(
            f"{path} is not a readable checkpoint: torch.save did not write it"
        ) from None


def _pickled(path: Path, reason: str) -> str:
    """What to do about a file that holds more than tensors, numbers and texts."""
    found = re.search(r"GLOBAL ([\w.]{1,80}) ", reason)
    what = f"pickled objects ({found[1]})" if found else "pickled objects or is damaged"
    text = (
        f"{path} is not a plain state dict: it holds {what} "
        "(loading those could run foreign code, so robrep refuses); "
    )
    if found is None or found[1] != "argparse.Namespace":
        return text + "save model.state_dict() instead"
    return text + (
        "arguments of a command do no harm, and torch takes them out by: python -c "
        '"import argparse, torch; '
        "torch.serialization.add_safe_globals([argparse.Namespace]); "
        f"c = torch.load('{path}', weights_only=True); "
        "torch.save({k: v for k, v in c.items() if not isinstance(v, "
        "argparse.Namespace)}, 'weights.pt')\""
    )


def _unpacked(path: Path) -> int:
    """Bytes of what lies in it, if it is a zip; torch itself never compresses."""
    try:
        if not zipfile.is_zipfile(path):
            return 0
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return 0  # torch says what is wrong with it


def _check_tensors(path: Path, tensors: list[Tensor]) -> None:
    """Refuses tensors that claim to be larger than their file."""
    import torch

    if any(tensor.layout is not torch.strided for tensor in tensors):
        raise UserError(f"{path} holds sparse tensors; save a plain state dict")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    with budgets.naming(path):
        limit = budgets.SLACK * path.stat().st_size
        budgets.check(size, limit, "bytes of tensors in a small file")
