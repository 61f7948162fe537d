"""Trains a 1-Lipschitz encoder without labels: `python -m pretrain.lipschitz FOLDER`.

Every layer keeps lengths (orthogonal weights, MaxMin in between), so features cannot
move farther than pixels do. The contrastive loss has to separate images by true
distances, since nothing can be stretched: that distance is the certificate. Layers
are deel-torchlip's (Serrurier et al. 2021, arXiv 2006.06520); the published weights
are plain matrices.

Expected on digits after half a minute on one core: 98% clean, of which 72% is certified
at L2 eps 0.25.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rich_click as click
import torch
from torch import Tensor, nn

from pretrain.augment import augment, preset
from zoo import datasets
from zoo.collection.index import CARD
from zoo.commands.shell import run
from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.errors import UserError
from zoo.files import sha256_file
from zoo.records import WEIGHTS, Card, Training, read_record, write_record

METHOD = "lipschitz-contrast"
SHRINK = 1 - 2.0**-21
"""Leaves room for the rounding of the published float32 weights."""


@dataclass(frozen=True, kw_only=True)
class LipschitzSettings:
    """Of the training."""

    name: str = "lipschitz-digits"
    data: str = "digits"
    widths: tuple[int, ...] = (128, 128, 128)
    epochs: int = 60
    batch: int = 256
    lr: float = 2e-3
    """Of Adam, with a cosine to zero."""
    temperature: float = 1.0
    """Divides squared distances, in the units of pixels in [0, 1]."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"the number of epochs must be positive, not {self.epochs}")


def distance_contrast(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """InfoNCE on squared distances: no normalisation, so scale cannot be bought.

    Args:
        a: Features of the first views (N, d).
        b: Those of the second views; row i shows the same image as row i of `a`.
        temperature: Divides the squared distances.

    Returns:
        Scalar mean over the 2 N anchors.
    """
    n = len(a)
    z = torch.cat([a, b])
    square = z.square().sum(dim=1)
    distance = square.unsqueeze(1) + square.unsqueeze(0) - 2 * z @ z.T
    own = torch.eye(2 * n, dtype=torch.bool)
    logits = (-distance / temperature).masked_fill(own, -torch.inf)
    return nn.functional.cross_entropy(logits, torch.arange(2 * n).roll(n))


def _torchlip() -> Any:
    try:
        from deel import torchlip
    except ImportError:
        raise UserError(
            "training a Lipschitz encoder needs deel-torchlip: "
            "pip install 'robrep[lipschitz]'"
        ) from None
    return torchlip


def build(pixels: int, widths: tuple[int, ...]) -> nn.Module:
    """Orthogonal layers under training; `plain` turns them into matrices."""
    torchlip = _torchlip()
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip((pixels, *widths[:-1]), widths, strict=True):
        layers += [torchlip.SpectralLinear(inputs, outputs), torchlip.GroupSort2()]
    return torchlip.Sequential(*layers[:-1], k_coef_lip=1.0)  # type: ignore[no-any-return]


def train(settings: LipschitzSettings) -> tuple[Encoder, float]:
    """Trains on the training split; returns the encoder and the last epoch's loss."""
    data = datasets.load(settings.data, "train")
    images = data.images(slice(None))
    generator = torch.Generator().manual_seed(settings.seed)
    views = preset(settings.data, data.shape[0])
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchlip's about torch's parametrisations
        torch.manual_seed(settings.seed)
        model = build(images[0].numel(), settings.widths)
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, settings.epochs
        )
        mean = 0.0
        for _ in range(settings.epochs):
            losses = []
            order = torch.randperm(len(images), generator=generator)
            for rows in order.split(settings.batch):
                pair = [augment(images[rows], views, generator) for _ in "ab"]
                a, b = model(torch.cat(pair)).chunk(2)  # orthogonalises once
                loss = distance_contrast(a, b, settings.temperature)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            schedule.step()
            mean = sum(losses) / len(losses)
        model.eval()
        return plain(model, data.shape, settings.widths), mean


def plain(
    model: nn.Module, shape: tuple[int, int, int], widths: tuple[int, ...]
) -> Encoder:
    """The trained function as an encoder of the zoo: plain matrices, no torchlip.

    Rounding leaves a spectral norm of 1 + 1e-7 here and there; dividing by it makes the
    encoder 1-Lipschitz to the letter.
    """
    exported = model.vanilla_export()  # type: ignore[operator]
    encoder = Encoder(
        EncoderSpec(
            arch="lipschitz_dense",
            options={"size": shape[1], "widths": list(widths)},
            shape=shape,
        )
    ).eval()
    trained = [layer for layer in exported if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for own, theirs in zip(encoder.backbone.linears(), trained, strict=True):  # type: ignore[operator]
            norm = torch.linalg.matrix_norm(theirs.weight.double(), ord=2)
            own.weight.copy_(theirs.weight.double() / norm.clamp(min=1) * SHRINK)
            own.bias.copy_(theirs.bias)
    return encoder


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
@click.option("--epochs", default=LipschitzSettings.epochs, show_default=True)
def command(folder: Path, seed: int, epochs: int) -> None:
    """Trains the Lipschitz encoder of the digits and writes it with its card."""
    settings = LipschitzSettings(seed=seed, epochs=epochs)
    _torchlip()
    _check_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}; name another folder"
        ) from None
    began = time.perf_counter()
    encoder, loss = train(settings)
    card = publish(encoder, folder, settings, time.perf_counter() - began)
    click.echo(f"loss {loss:.4f}; saved {card.name} in {folder}")


def _check_free(folder: Path) -> None:
    """Raises `UserError` where files of anything but such an encoder would be lost."""
    found = [folder / name for name in (CARD, WEIGHTS) if (folder / name).exists()]
    if not found:
        return
    try:
        ours = read_record(folder / CARD, Card).training.method == METHOD
    except (UserError, OSError):
        ours = False
    if not ours:
        raise UserError(
            f"{found[0]} is there already and is not of this command; name another "
            "folder"
        )


def publish(
    encoder: Encoder, folder: Path, settings: LipschitzSettings, seconds: float
) -> Card:
    """Writes weights and card."""
    weights = folder / WEIGHTS
    save_encoder(encoder, weights)
    card = Card(
        name=settings.name,
        description=f"1-Lipschitz encoder pretrained on {settings.data}, without "
        "labels: certificates for any linear probe at once",
        arch=encoder.spec.arch,
        shape=encoder.spec.shape,
        dim=encoder.dim,
        training=Training(
            method=METHOD,
            dataset=settings.data,
            command=f"python -m pretrain.lipschitz FOLDER --seed {settings.seed} "
            f"--epochs {settings.epochs}",
            recipe=asdict(settings),
            seed=settings.seed,
            epochs=settings.epochs,
            passes=6.0 * settings.epochs,
            seconds=round(seconds, 1),
            versions={"torch": torch.__version__},
        ),
        sha256=sha256_file(weights),
        licence="Apache-2.0",
        notes="Certificates: robrep-eval --model zoo:lipschitz-digits --norm L2 "
        "--eps 0.25 --certify lipschitz.",
    )
    write_record(folder / CARD, card)
    return card


if __name__ == "__main__":
    run(command, "python -m pretrain.lipschitz")
