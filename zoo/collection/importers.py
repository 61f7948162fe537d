"""Published robust self-supervised checkpoints, in their authors' formats.

What is kept of each is the branch and the batch-norm set that its authors evaluate for
robustness; projectors, prediction heads and the other sets are dropped, and any key
that is neither kept nor known is an error. Formats were read from the authors' code:

RoCL    Kim et al. 2020, arXiv 2006.07589, github.com/Kim-Minseon/RoCL
ACL     Jiang et al. 2020, arXiv 2010.13337, github.com/VITA-Group
AdvCL   Fan et al. 2021, arXiv 2111.01124, github.com/LijieFan/AdvCL
DeACL   Zhang et al. 2022, arXiv 2207.10899, github.com/pantheon5100/DeACL
DynACL  Luo et al. 2023, arXiv 2303.01289, github.com/PKU-ML/DYNACL
        (DynACL++ fine-tunes on pseudo-labels, with one set of batch norms)
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.collection.fitting import HEADS
from zoo.collection.index import check_name
from zoo.errors import UserError, nearest
from zoo.files import sha256_file
from zoo.records import Card, Training, write_record
from zoo.threat import ThreatModel

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.encoder import Encoder

NORMALISATION = ("normalize.mean", "normalize.std")
BN_LIST = re.compile(r"\.bn_list\.(0|[1-9][0-9]?)\.")
SIZES = {"cifar": 32, "imagenet": 96}
"""Images that each stem is for; the larger as the field uses it for STL-10."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How one method's checkpoints are laid out."""

    method: str
    title: str
    source: str
    branches: tuple[str, ...] = ("",)
    """Prefixes of the encoder, in order of preference; "" for none."""
    dropped: tuple[str, ...] = ()
    """Prefixes, after the branch, of what is no part of the encoder."""
    bn_sets: int = 1
    bn_set: int = 0
    """Which of the batch-norm sets is the adversarial one."""
    stem_padding: int = 1
    extra_data: bool = False


FORMATS = {
    row.method.replace("++", "-pp"): row
    for row in (
        Format(
            method="rocl",
            title="RoCL (Kim et al. 2020)",
            source="https://github.com/Kim-Minseon/RoCL",
            dropped=("linear.",),
        ),
        Format(
            method="acl",
            title="ACL, dual stream (Jiang et al. 2020)",
            source="https://github.com/VITA-Group/Adversarial-Contrastive-Learning",
            dropped=("fc.",),
            bn_sets=2,
            bn_set=1,
        ),
        Format(
            method="advcl",
            title="AdvCL (Fan et al. 2021)",
            source="https://github.com/LijieFan/AdvCL",
            dropped=("fc_", "fc.", "head_"),
            bn_sets=3,
            bn_set=1,
            extra_data=True,  # pseudo-labels of a network trained on ImageNet
        ),
        Format(
            method="deacl",
            title="DeACL (Zhang et al. 2022)",
            source="https://github.com/pantheon5100/DeACL",
            branches=("backbone.",),
            dropped=("fc.",),
            stem_padding=2,
        ),
        Format(
            method="dynacl",
            title="DynACL (Luo et al. 2023)",
            source="https://github.com/PKU-ML/DYNACL",
            branches=("encoder_k.", ""),
            dropped=("fc.",),
            bn_sets=2,
            bn_set=1,
        ),
        Format(
            method="dynacl++",
            title="DynACL++ (Luo et al. 2023)",
            source="https://github.com/PKU-ML/DYNACL",
            dropped=("fc.",),
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of a checkpoint."""

    folder: Path
    """Holds card.json and model.safetensors, ready to publish."""
    card: Card
    dropped: int
    """Tensors that are no part of the encoder."""
    head: str | None = None
    """Name of a linear classifier on the encoder, which was dropped."""


def get(method: str) -> Format:
    """The format of a method; raises `UserError` with the nearest names."""
    try:
        return FORMATS[method.lower()]
    except KeyError:
        raise UserError(
            f"unknown format '{method}'; {nearest(method, FORMATS)}"
        ) from None


def import_checkpoint(
    path: Path,
    method: str,
    to: Path,
    *,
    name: str,
    dataset: str = "cifar10",
    licence: str = "see source",
    labels: bool | None = None,
) -> Imported:
    """Turns an authors' checkpoint into an encoder with a card.

    Args:
        path: The checkpoint; read without running code from it.
        method: A name in `FORMATS`.
        to: Collection; the encoder goes to its folder `name`.
        name: New name of the encoder.
        dataset: What it was pretrained on.
        licence: Of the weights.
        labels: Whether the encoder saw labels; by default if the file holds a linear
            classifier on it.

    Raises:
        UserError: unknown format, pickled objects, weights that do not fit.
    """
    from zoo.collection.state_file import read_state

    form = get(method)
    check_free(to, name)
    raw = read_state(path)
    state = {_plain_key(key): value for key, value in raw.items()}
    if len(state) < len(raw):
        told = Counter(map(_plain_key, raw)).most_common(1)[0][0]
        raise UserError(
            f"{path} holds several networks: '{told}' is there under two prefixes"
        )
    encoder, dropped = build(state, form, source=str(path))
    head = _linear_head(state, _branch(state, form, str(path)), encoder.dim)
    card = Card(
        name=name,
        description=f"{form.title}, pretrained on {dataset}; imported from {path.name}",
        arch=encoder.spec.arch,
        shape=encoder.spec.shape,
        dim=encoder.dim,
        training=Training(
            method=form.method,
            dataset=dataset,
            threat=ThreatModel(norm="Linf", eps=8 / 255),
            labels=head is not None if labels is None else labels,
            extra_data=form.extra_data,
        ),
        sha256="0" * 64,
        licence=licence,
        source=form.source,
        notes=f"checkpoint SHA-256 {sha256_file(path)}",
    )
    folder, card = save_imported(encoder, card, to)
    return Imported(folder=folder, card=card, dropped=dropped, head=head)


def check_free(to: Path, name: str) -> None:
    """Raises `UserError` for a name that is none, or is taken in the folder."""
    check_name(name, "an encoder")
    if (to / name).exists():
        raise UserError(f"{to / name} exists already; choose another --name")


def save_imported(encoder: Encoder, card: Card, to: Path) -> tuple[Path, Card]:
    """Writes an encoder's folder, whole or not at all.

    Args:
        encoder: In eval mode.
        card: Without the hash of the weights.
        to: Collection; the folder has the card's name.

    Returns:
        The folder, and the card with the hash.
    """
    from zoo.encoder import feature_digest, save_encoder

    check_free(to, card.name)
    if not all(map(math.isfinite, feature_digest(encoder))):
        raise UserError(
            f"the features of {card.name} are not finite: the checkpoint is damaged"
        )
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to, prefix=f".{card.name}-") as scratch:
        made = Path(scratch) / card.name
        save_encoder(encoder, made / card.weights)
        card = card.model_copy(update={"sha256": sha256_file(made / card.weights)})
        write_record(made / "card.json", card)
        made.rename(to / card.name)
    return to / card.name, card


def build(
    state: dict[str, Tensor], form: Format, *, source: str
) -> tuple[Encoder, int]:
    """The encoder of a state dict, and how many tensors are no part of it.

    Args:
        state: Without the prefixes of parallel training; shortcuts under that name.
        form: Its layout.
        source: Names the checkpoint in messages.
    """
    from zoo.encoder import Encoder, EncoderSpec, describing, load_weights

    kept = _encoder_part(state, form, source)
    kept, mean, std = _normalisation(kept)
    kept = _one_bn_set(kept, form, source)
    stem = _stem(kept, source)
    options: dict[str, object] = {"stem": stem}
    if stem == "cifar":
        options["stem_padding"] = form.stem_padding
    size = SIZES[stem]
    with describing(Path(source)):
        spec = EncoderSpec(
            arch="resnet18", options=options, shape=(3, size, size), mean=mean, std=std
        )
        encoder = Encoder(spec)
    load_weights(encoder.backbone, kept, source=source)
    return encoder.eval(), len(state) - len(kept)


def _plain_key(key: str) -> str:
    for prefix in ("module.", "model.", "encoder."):
        key = key.removeprefix(prefix)
    return key.replace(".downsample.", ".shortcut.")


def _branch(state: dict[str, Tensor], form: Format, source: str) -> str:
    """Prefix of the kept encoder; raises `UserError` if the format's is not there."""
    for branch in form.branches:
        if not branch or any(key.startswith(branch) for key in state):
            return branch
    raise UserError(
        f"{source} has nothing under {' or '.join(form.branches)}, where {form.title} "
        "keeps its encoder; is it a checkpoint of another method?"
    )


def _encoder_part(
    state: dict[str, Tensor], form: Format, source: str
) -> dict[str, Tensor]:
    """Keys of the kept branch, without its prefix and without heads."""
    branch = _branch(state, form, source)
    inside = {
        k.removeprefix(branch): v for k, v in state.items() if k.startswith(branch)
    }
    return {k: v for k, v in inside.items() if not k.startswith(form.dropped)}


def _linear_head(state: dict[str, Tensor], branch: str, dim: int) -> str | None:
    """Name of a linear layer on the encoder's own features, as classifiers have it.

    One beside the branch (DeACL's `classifier`) is trained without moving the encoder.
    """
    for name in HEADS:
        weight = state.get(f"{branch}{name}.weight")
        if weight is not None and weight.ndim == 2 and weight.shape[1] == dim:
            return name
    return None


def _normalisation(
    state: dict[str, Tensor],
) -> tuple[dict[str, Tensor], tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the authors keep inside the model."""
    mean, std = (state.get(key) for key in NORMALISATION)
    rest = {k: v for k, v in state.items() if k not in NORMALISATION}
    if mean is None or std is None:
        return rest, (0.0,), (1.0,)
    return rest, tuple(mean.flatten().tolist()), tuple(std.flatten().tolist())


def _one_bn_set(
    state: dict[str, Tensor], form: Format, source: str
) -> dict[str, Tensor]:
    """Collapses lists of batch norms to the adversarial one, in plain names."""
    found = {int(m[1]) for m in map(BN_LIST.search, state) if m}
    wanted = set(range(form.bn_sets)) if form.bn_sets > 1 else set()
    if found != wanted:
        raise UserError(
            f"{source} has {len(found) or 1} sets of batch norm, {form.title} has "
            f"{form.bn_sets}; is it a checkpoint of another method, or of a fine-tuned "
            "model?"
        )
    kept = {}
    for key, value in state.items():
        match = BN_LIST.search(key)
        if match and int(match[1]) != form.bn_set:
            continue
        plain = BN_LIST.sub(".", key)
        plain = plain.replace(".shortcut.conv.", ".shortcut.0.")
        kept[plain.replace(".shortcut.bn.", ".shortcut.1.")] = value
    return kept


def _stem(state: dict[str, Tensor], source: str) -> str:
    if "conv1.weight" not in state:
        raise UserError(
            f"{source} has no conv1.weight where its format has the encoder"
        )
    return "imagenet" if state["conv1.weight"].shape[-1] == 7 else "cifar"
