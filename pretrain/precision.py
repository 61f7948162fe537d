"""Networks may run in bf16; what is computed from pixels and features never does.

bf16 keeps 8 bits: a loss would be rounded to a few per mille, the differences that an
attack climbs with it, and the coordinates of a warp to a tenth of a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from pretrain.recipe import Recipe

X86_BF16 = ("avx512_bf16", "amx_bf16")
"""Instructions, as torch calls them; either will do."""
P = ParamSpec("P")
R = TypeVar("R")


def precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast for the forward passes, attacks included, or nothing."""
    enabled = recipe.precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def slowness(recipe: Recipe, device: torch.device) -> str | None:
    """What to tell people whose processor has no instructions for bf16.

    None: it has some, or it is no x86, or torch does not tell.
    """
    if recipe.precision != "bf16" or device.type != "cpu":
        return None
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    has = [known[name] for name in X86_BF16 if name in known]
    if not has or any(has):
        return None
    return (
        "this processor has no bf16 instructions: precision bf16 is emulated, two to "
        "eleven times slower than fp32; -o precision=fp32 gives other weights, sooner"
    )


def in_fp32(function: Callable[P, R]) -> Callable[P, R]:
    """Runs a function outside autocast, which casts matrix products to bf16.

    Autocast casts inside library functions too, for example in `F.affine_grid`.
    """

    @wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **kwargs)

    return outside


def widened(z: Tensor) -> Tensor:
    """Half precision as float32; wider types stay."""
    return z.float() if z.dtype in (torch.bfloat16, torch.float16) else z
