"""What a file of other people may cost here: beyond that it is refused, by one error.

A small file can ask for much: JSON that nests without end, a picture of a few kB with
10^9 pixels, an architecture larger than its own weights. Every reader asks here first,
and says which budget was passed. Imports no torch before it must.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import nn

TEXT_BYTES = 64 << 20
"""Of a JSON file."""
SETTINGS_BYTES = 64 << 10
"""Of a YAML file: settings are short, and its reader is slow."""
VALUES = 4_000_000
"""In one JSON file, by its commas and brackets; as many rows times columns."""
KEYS = 20_000
"""Of one JSON object."""
DEPTH = 64
"""Objects and lists inside each other."""
DIGITS = 100
"""Of one number."""
HEADER_BYTES = 16 << 20
"""Of the description at the beginning of a safetensors file."""
TENSOR_BYTES = 16 << 30
"""Of one file of tensors."""
ARRAY_BYTES = 1 << 30
"""Of an array of pixels, after decompression."""
PIXELS = 1 << 26
"""Of one image file: 67 million."""
SHAPE_VALUES = 3 * 1024 * 1024
"""Channels times height times width that an encoder is described to take."""
OPTION = 1 << 16
"""Magnitude of a whole number in the description of an architecture."""
SLACK = 4
"""Numbers that building an architecture may make, per number that its file holds..."""
SPARE = 1 << 22
"""...and besides; each tensor counts as `LEAST` at least."""
LEAST = 1024
ACTIVATION = 1 << 27
"""Numbers that one layer may give for two images."""
ACTIVATIONS = 1 << 30
"""All layers together."""


class BudgetError(UserError):
    """Larger than anything that robrep reads; says what, how large and the budget."""


def check(found: int, budget: int, what: str) -> None:
    """Raises `BudgetError` if `found` is more than the budget.

    Args:
        found: What was found, in the unit that `what` names.
        budget: The most that is read.
        what: Completes "has 12 ...", such as "bytes".
    """
    if found > budget:
        raise BudgetError(f"it has {_short(found)} {what}; robrep reads {budget:,}")


def _short(number: int) -> str:
    return f"{number:,}" if number < 10**18 else f"about 10^{int(math.log10(number))}"


def regular(path: Path) -> int:
    """Size in bytes of a plain file.

    Raises:
        UserError: no such file, or a folder, pipe or device, which could hang.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no file {path}") from None
    except (OSError, ValueError) as error:  # too long, a loop of links, a null byte
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is no plain file; give a file")
    return found.st_size


def read_bytes(path: Path, budget: int) -> bytes:
    """A whole plain file; raises `UserError` as `regular`, or if it is too large."""
    with naming(path):
        check(regular(path), budget, "bytes")
    return path.read_bytes()


@contextmanager
def naming(name: object) -> Iterator[None]:
    """Says which file it was that passed a budget."""
    try:
        yield
    except BudgetError as error:
        raise BudgetError(f"{name} is refused: {error}") from None


def check_text(content: bytes) -> None:
    """Size of JSON and number of its values, before it is parsed."""
    check(len(content), TEXT_BYTES, "bytes")
    values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    check(values, VALUES, "values")


def check_values(content: Any) -> None:
    """Depth of parsed JSON or YAML, and keys of each object.

    Raises:
        BudgetError: deeper, or an object with more keys.
        ValueError: a key that is no text, text that is no Unicode, or a value that
            JSON does not have.
    """
    level = [content]
    for _ in range(DEPTH):
        deeper: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                check(len(each), KEYS, "keys in one object")
                for key in each:
                    _check_scalar(key, str)
                deeper += each.values()
            elif isinstance(each, list):
                deeper += each
            else:
                _check_scalar(each, str | int | float | None)
        if not deeper:
            return
        level = deeper
    raise BudgetError(f"it is nested more than {DEPTH} deep")


def _check_scalar(value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} where text or a number belongs")
    if isinstance(value, str) and not value.isascii():
        value.encode()  # UnicodeEncodeError is a ValueError
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if type(value) is int and value.bit_length() > 4 * DIGITS:
        raise ValueError(f"a whole number of more than {DIGITS} digits")


def integer(text: str) -> int:
    """A whole number of JSON; raises `ValueError` for one of too many digits."""
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} digits; {DIGITS} are the most")
    return int(text)


def check_shape(shape: Iterable[int]) -> None:
    """Raises `BudgetError` for images of too many values."""
    check(math.prod(shape), SHAPE_VALUES, "values in one image")


def check_header(path: Path) -> None:
    """Sizes of a safetensors file and of its description, before it is opened."""
    with naming(path):
        size = regular(path)
        check(size, TENSOR_BYTES, "bytes")
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
        if length < size:  # else it is no such file, which its reader says
            check(length, HEADER_BYTES, "bytes of description")


@contextmanager
def building(held: int) -> Iterator[None]:
    """Ends the building of a module that makes more than its file can fill.

    Args:
        held: Numbers that the file holds, over all tensors.

    Raises:
        BudgetError: before memory is taken.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    makers = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand}
    makers |= {torch.randn, torch.arange, torch.linspace, torch.eye, torch.tensor}
    budget = SLACK * held + SPARE

    class Counting(TorchFunctionMode):
        made = 0

        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            if func in makers:
                self.made += max(LEAST, _numbers(args, kwargs or {}))
                if self.made > budget:
                    raise BudgetError(
                        "the architecture has more weights than the file holds "
                        f"({held:,} numbers)"
                    )
            return func(*args, **(kwargs or {}))

    with Counting():
        yield


def _numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many numbers a call such as `torch.empty(2, 3)` makes."""
    size = kwargs.get("size", args)
    if size and isinstance(size[0], tuple | list):
        size = size[0]
    return math.prod(abs(side) for side in size if isinstance(side, int))


def surely_small(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether a network that never enlarges its images must stay in the budget.

    The exact answer of `check_activations` takes seconds, once per process.
    """
    weights = list(module.parameters())
    widest = max((max(weight.shape, default=1) for weight in weights), default=1)
    return 2 * widest * math.prod(shape) * max(1, len(weights)) <= ACTIVATIONS


def check_activations(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Runs the module without memory or arithmetic, to see what a pass would take.

    Args:
        module: Maps images (N, *shape) to features.
        shape: (C, H, W).

    Raises:
        BudgetError: one layer, or all of them, would give too many numbers.
    """
    import torch
    from torch.func import functional_call

    total = 0

    def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            check(output.numel(), ACTIVATION, "numbers after one layer")
            total += output.numel()
            check(total, ACTIVATIONS, "numbers after all layers")

    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    ghosts = {name: value.to("meta") for name, value in state.items()}
    with ExitStack() as stack, torch.no_grad():
        for part in module.modules():
            stack.callback(part.register_forward_hook(count).remove)
        try:
            functional_call(module, ghosts, torch.empty(2, *shape, device="meta"))
        except NotImplementedError:
            return  # its arithmetic depends on values, which ghosts do not have


def plain_reason(error: BaseException) -> str:
    """The first line of what a library said, or the name of its error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    readable = re.search(r"[a-z]{2}", text)
    return text[:200] if readable else type(error).__name__
