"""Small real collections for tests: encoders with fresh weights and honest cards."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.files import sha256_file
from zoo.records import Card, Result, Training, write_record
from zoo.threat import ThreatModel

TINY = {"widths": [4, 8], "blocks": [1, 1]}


def tiny_encoder(
    seed: int = 0, shape: tuple[int, int, int] = (1, 8, 8), arch: str = "resnet_s8"
) -> Encoder:
    """A very small network of the real architecture, in eval mode."""
    torch.manual_seed(seed)
    return Encoder(EncoderSpec(arch=arch, options=TINY, shape=shape)).eval()


def card_of(encoder: Encoder, name: str, weights: Path, **fields: Any) -> Card:
    """The card of an encoder saved at `weights`."""
    return Card.model_validate(
        {
            "name": name,
            "description": "a test encoder",
            "arch": encoder.spec.arch,
            "shape": encoder.spec.shape,
            "dim": encoder.dim,
            "training": Training(
                method="tarrl",
                dataset="digits",
                threat=ThreatModel(norm="Linf", eps=0.1),
                command="robrep-pretrain run digits-tarrl",
            ),
            "sha256": sha256_file(weights),
            "licence": "Apache-2.0",
            **fields,
        }
    )


def add_encoder(root: Path, name: str, seed: int = 0, **fields: Any) -> Encoder:
    """Puts an encoder and its card into the collection at `root`."""
    encoder = tiny_encoder(seed)
    path = root / name / "model.safetensors"
    save_encoder(encoder, path)
    write_record(root / name / "card.json", card_of(encoder, name, path, **fields))
    return encoder


@dataclass(frozen=True)
class Evaluated:
    """A plain collection, two evaluations, and what was published of the first."""

    plain: Path
    run: Path
    other_run: Path
    published: Path
    result: Result

    def copy(self, to: Path) -> Path:
        """The published collection once more, to be tampered with."""
        shutil.copytree(self.published, to)
        return to


ENTRY = "digits-linf-0.02-slf-v2-fgsm-pgd"
"""Name of the published entry."""
