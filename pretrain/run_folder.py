"""What a run leaves behind: recipe, metrics, checkpoint, encoders with cards, curves.

RUN/recipe.yaml         every setting in force
RUN/metrics.jsonl       one line per epoch
RUN/checkpoint.pt       state to resume from, readable with weights_only=True
RUN/last, RUN/best      card.json and model.safetensors, ready for a zoo; local.json
                        says where images of the user's own lie
RUN/curves.svg          loss parts and accuracies over epochs
RUN/tensorboard         the metrics again, if TensorBoard is installed
RUN/teacher             the run of the teacher, if the recipe trains one
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from pretrain import distributed
from pretrain.cards import describe
from pretrain.curves import draw
from pretrain.recipe import Recipe, dump, read_settings, validate
from zoo.collection.index import CARD
from zoo.datasets.local import note
from zoo.encoder import Encoder, save_encoder
from zoo.errors import UserError
from zoo.files import atomic, leftovers, naming, parse_json, sha256_file, write_text
from zoo.records import WEIGHTS, Card, Training, write_record
from zoo.settings import differing

YOUNGER = {"step": 0, "sums": {}, "spent": 0.0}
"""Keys that checkpoints of older versions, all of them between epochs, do not have."""
LISTED = "images"
"""Key of what tells the files trained on from others (`Dataset.list_files`), or None;
checkpoints of older versions do not have it."""
CHECKPOINT = {
    *("epoch", "seconds", "best", "method", "optimizer", "average"),
    *(*YOUNGER, LISTED),
}
"""Keys of a checkpoint."""
KINDS = ("best", "last")
"""Folders of a run that hold an encoder."""


class TrainingFolder:
    """One run on disk.

    Args:
        path: Created if needed; if it holds a run, that must have the same recipe.

    Raises:
        UserError: it holds a run with another recipe (the keys are named), or cannot
            be written.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoint_file = path / "checkpoint.pt"
        self.curves_file = path / "curves.svg"
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is not a folder; choose another with --output")
        self.board: Any = None
        self._check_own()
        self._check_same(recipe)

    def create(self, recipe: Recipe) -> None:
        """Makes the folder and notes the recipe in it; one process does."""
        if distributed.leads() and not self.recipe_file.exists():
            write_text(self.recipe_file, dump(recipe))

    def _check_own(self) -> None:
        """What lies under the names of a run must be of a run."""
        files = (self.metrics_file, self.checkpoint_file, self.curves_file)
        encoders = [
            self.path / kind / name for kind in KINDS for name in (CARD, WEIGHTS)
        ]
        found = [path for path in (*files, *encoders) if path.exists()]
        # Asked last: the first process of several may be making the folder right now.
        if found and not self.recipe_file.is_file():
            raise UserError(
                f"{found[0]} is not of a run of robrep-pretrain (there is no "
                f"{self.recipe_file.name}); use another folder with --output"
            )

    def _check_same(self, recipe: Recipe) -> None:
        if not self.recipe_file.is_file():
            return
        try:  # settings that are younger than the run have their defaults
            old = validate(read_settings(self.recipe_file))
        except UserError as error:
            raise UserError(
                f"{self.path} holds a run that cannot be continued: {error}; use "
                "another folder with --output"
            ) from None
        keys = differing(old.model_dump(mode="json"), recipe.model_dump(mode="json"))
        if keys:
            raise UserError(
                f"{self.path} holds a run with other settings of {', '.join(keys)}; "
                "use those to go on with it, or another folder with --output"
            )

    def load(self, *, truncate: bool) -> dict[str, Any] | None:
        """The last checkpoint, or None.

        Args:
            truncate: Drop metrics of epochs after the checkpoint, which come again,
                and what a killed process left of unfinished files.
        """
        if truncate:
            self._sweep()
        if not self.checkpoint_file.is_file():
            if truncate:
                self._keep_metrics(before=0)
            return None
        try:
            state: dict[str, Any] = torch.load(
                self.checkpoint_file, map_location="cpu", weights_only=True
            )
        except Exception as error:  # torch raises many kinds on a damaged file
            raise UserError(
                f"{self.checkpoint_file} cannot be read "
                f"({type(error).__name__}); remove it to start again"
            ) from None
        if isinstance(state, dict) and not state.keys() & YOUNGER.keys():
            state |= YOUNGER
        if isinstance(state, dict):
            state.setdefault(LISTED, None)
        if not isinstance(state, dict) or state.keys() != CHECKPOINT:
            raise UserError(
                f"{self.checkpoint_file} is no checkpoint of robrep-pretrain; remove "
                "it to start again"
            )
        if truncate:
            self._keep_metrics(before=state["epoch"])
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint; if that fails, the old one is still there."""
        # Through memory: on a full disk torch's own writer would not say what failed.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with atomic(self.checkpoint_file) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def log(self, line: dict[str, Any]) -> None:
        """Appends one line of metrics."""
        with (
            naming(self.metrics_file),
            self.metrics_file.open("a", encoding="utf-8") as stream,
        ):
            stream.write(json.dumps(line) + "\n")
        if self.board is None:
            self.board = _tensorboard(self.path / "tensorboard")
        if self.board:
            for key, value in line.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(key, value, line["epoch"])

    def draw(self, title: str) -> None:
        """Brings the curves up to date."""
        draw(self.metrics(), self.curves_file, title)

    def metrics(self) -> list[dict[str, Any]]:
        """All lines so far; a last one that a kill cut short is left out."""
        if not self.metrics_file.is_file():
            return []
        lines: list[dict[str, Any]] = []
        texts = self.metrics_file.read_bytes().splitlines()
        for at, text in enumerate(texts, start=1):
            try:
                line = parse_json(text, "a line")
            except UserError:
                if at == len(texts):
                    break
                line = None
            epoch = line.get("epoch") if isinstance(line, dict) else None
            if type(epoch) is not int or epoch < 0:
                raise UserError(
                    f"{self.metrics_file} has a line that is no record of an epoch "
                    f"({text[:60]!r}); remove that line"
                )
            lines.append(line)
        return lines

    def publish(
        self,
        kind: str,
        encoder: Encoder,
        recipe: Recipe,
        training: Training,
        licence: str | None = None,
    ) -> Path:
        """Writes an encoder and its card to RUN/`kind`; returns that folder.

        Args:
            kind: One of `KINDS`.
            encoder: As exported.
            recipe: For name, data and licence.
            training: For the card.
            licence: Of the encoder that it started from, which is then its own.
        """
        folder = self.path / kind
        save_encoder(encoder, folder / WEIGHTS)
        card = Card(
            name=recipe.name,
            description=describe(training),
            arch=encoder.spec.arch,
            shape=encoder.spec.shape,
            dim=encoder.dim,
            training=training,
            weights=WEIGHTS,
            sha256=sha256_file(folder / WEIGHTS),
            licence=licence or recipe.licence,
        )
        write_record(folder / CARD, card)
        note(folder, recipe.data)
        return folder

    def _sweep(self) -> None:
        for file in (self.checkpoint_file, self.curves_file, self.metrics_file):
            for left in leftovers(file):
                left.unlink()

    def _keep_metrics(self, before: int) -> None:
        lines = [line for line in self.metrics() if line["epoch"] <= before]
        if self.metrics_file.is_file():
            write_text(self.metrics_file, "".join(json.dumps(x) + "\n" for x in lines))


def _tensorboard(folder: Path) -> Any:
    """A writer if TensorBoard is installed, else False."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return False
    return SummaryWriter(str(folder))
