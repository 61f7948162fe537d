"""Weights under names of other people's, brought to those of a network here.

Frameworks put prefixes before names ("module.", "model.backbone.", ...), and one file
may hold several networks. The prefix under which most names and shapes fit is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = frozenset(
    ("module", "model", "net", "encoder", "encoder_q", "backbone", "_orig_mod")
)
"""Parts of prefixes that name the network itself, and not a copy beside it."""
HEADS = ("linear", "fc", "head", "classifier", "head.fc")
"""Names under which classifiers of the field keep their last layer."""
SHORTCUTS = (".shortcut.", ".downsample.")
"""One thing in a ResNet, by its two names."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The tensors of a file, by what they are here."""

    weights: dict[str, Tensor]
    """By the network's own names; what has none keeps its name in the file."""
    head: dict[str, Tensor]
    """"weight", (classes, d), and perhaps "bias", of a linear head; or empty."""
    notes: tuple[str, ...] = ()
    """What the user is to know."""


def fit_names(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    *,
    source: str,
    prefix: str | None = None,
) -> Fitted:
    """Finds the network, and a linear head on it, among the tensors of a file.

    Args:
        tensors: Of the file.
        own: State dict of the network that they are for.
        source: Names the file in messages.
        prefix: Under which the network lies; by default found.

    Raises:
        UserError: several networks fit equally well; nothing lies under `prefix`.
    """
    root = _root(own)
    names = {key.removeprefix(root): key for key in own}
    respelled = {_respell(key, own): key for key in tensors}
    found = _prefixes(respelled, tensors, names, own)
    chosen = _given(prefix, found) if prefix is not None else _best(found, respelled)
    weights, rest = dict[str, "Tensor"](), dict[str, "Tensor"]()
    for spelled, key in respelled.items():
        inside = spelled.removeprefix(chosen)
        if spelled.startswith(chosen) and inside in names:
            weights[names[inside]] = tensors[key]
        else:
            rest[spelled] = tensors[key]
    at, head = _head(rest, chosen)
    dropped = {
        key
        for key in rest
        if not key.startswith(chosen)
        or any(key.startswith(f"{chosen}{name}.") for name in HEADS)
    }
    weights |= {key: value for key, value in rest.items() if key not in dropped}
    left = dropped - {f"{at}.weight", f"{at}.bias"}
    notes = []
    if chosen not in ("", root) or left:
        under = f"the weights under '{chosen}'" if chosen else "the network's weights"
        notes = [f"Of {source} {under} are used{_left_out(left)}."]
    return Fitted(weights=weights, head=head, notes=tuple(notes))


def _root(own: Mapping[str, Tensor]) -> str:
    """What all names of the network begin with, if it only wraps."""
    first = next(iter(own), "")
    roots = [p for p, _ in _ends(first) if all(k.startswith(p) for k in own)]
    return max((p for p in roots if _wraps(p)), key=len, default="")


def _wraps(prefix: str) -> bool:
    return WRAPPERS.issuperset(prefix.split(".")[:-1])


def _respell(key: str, own: Mapping[str, Tensor]) -> str:
    """Shortcuts by the network's own name for them."""
    ours = next((s for s in SHORTCUTS if any(s in name for name in own)), None)
    for theirs in SHORTCUTS if ours else ():
        key = key.replace(theirs, str(ours))
    return key


def _ends(key: str) -> Iterator[tuple[str, str]]:
    """Every way to split a name into a prefix and the rest."""
    yield "", key
    for at, char in enumerate(key):
        if char == ".":
            yield key[: at + 1], key[at + 1 :]


def _prefixes(
    respelled: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    own: Mapping[str, Tensor],
) -> Counter[str]:
    """How well each prefix fits: names, and as many again for shapes."""
    found = Counter[str]()
    for spelled, key in respelled.items():
        for prefix, end in _ends(spelled):
            if end in names:
                same = tensors[key].shape == own[names[end]].shape
                found[prefix] += 1 + same
    return found


def _best(found: Counter[str], respelled: Mapping[str, str]) -> str:
    """The best prefix; of equals the one that names the network itself."""
    most = max(found.values(), default=0)
    best = sorted(prefix for prefix, count in found.items() if count == most)
    plain = [p for p in best if _wraps(p)]
    if len(best) <= 1 or len(plain) == 1:
        return (plain or best or [""])[0]
    raise UserError(
        f"several networks in the file fit: {', '.join(best)}; choose with --prefix"
    )


def _given(prefix: str, found: Counter[str]) -> str:
    wanted = prefix if prefix == "" or prefix.endswith(".") else f"{prefix}."
    if wanted in found:
        return wanted
    shown = [p for p, _ in found.most_common(5) if p]
    raise UserError(
        f"nothing of the architecture lies under --prefix '{prefix}'; "
        f"{nearest(wanted, shown)}"
    )


def _head(rest: Mapping[str, Tensor], prefix: str) -> tuple[str, dict[str, Tensor]]:
    """A linear layer beside the network or around it: its name, and its tensors."""
    parts = prefix.split(".")[:-1]
    for depth in range(len(parts), -1, -1):
        for name in HEADS:
            at = ".".join([*parts[:depth], name])
            weight = rest.get(f"{at}.weight")
            if weight is not None and weight.ndim == 2:
                pair = {"weight": weight, "bias": rest.get(f"{at}.bias")}
                return at, {k: v for k, v in pair.items() if v is not None}
    return "", {}


def _left_out(keys: set[str]) -> str:
    if not keys:
        return ""
    groups = sorted({".".join(key.split(".")[:-1]) or key for key in keys}, key=len)
    shown = ", ".join(groups[:3]) + ", ..." * (len(groups) > 3)
    return f"; {len(keys)} other tensors are left out ({shown})"
