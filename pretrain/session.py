"""One run in one process: the loop and its checks.

views, attack, loss, step; what is written about it is `pretrain.leader`'s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NoReturn

import torch
from torch import Tensor, nn

from pretrain import distributed, stable
from pretrain.averaging import IMAGES, has_statistics, measure_norms
from pretrain.build import build_method, plan, training_labels
from pretrain.checkpointing import checkpointed, found_blocks
from pretrain.data import Batches, Rows, Split
from pretrain.finite import first_broken
from pretrain.methods.base import Batch, LossParts, Method
from pretrain.optimizer import build_average, build_optimizer, build_schedule
from pretrain.precision import precision
from pretrain.progress import Reporter, Silent
from pretrain.randomness import Generator, ImageGenerator, generator
from pretrain.recipe import Recipe
from pretrain.run_folder import LISTED, TrainingFolder
from pretrain.sharding import (
    Whole,
    check_sharding,
    is_finite,
    load,
    load_optimizer,
    shard,
)
from pretrain.start import Start
from pretrain.state import State
from zoo.budgets import plain_reason
from zoo.encoder import Encoder
from zoo.errors import RobrepError, UserError


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where and for whom a run happens; none of it changes the weights' meaning."""

    data_dir: Path | None = None
    workers: int = 0
    """Processes that decode images; 0: none but the one that trains."""
    device: str = "cpu"
    command: str | None = None
    """Reproduces the run; noted on the card."""
    report: Reporter = field(default_factory=Silent)
    wait: bool = False
    """For another process that uses the run folder; otherwise that is an error."""


class Session:
    """One run in one process: networks, optimiser, data, and the loop."""

    leads: ClassVar[bool] = False
    """True if this process writes what the run leaves behind."""

    def __init__(
        self,
        recipe: Recipe,
        data: Split,
        run: TrainingFolder,
        around: Surroundings,
        teacher: Encoder | None,
        teacher_passes: float,
        start: Start | None = None,
    ) -> None:
        self.recipe, self.data, self.run, self.around = recipe, data, run, around
        self.start = start
        self.device = torch.device(around.device)
        method = build_method(recipe, data.train, teacher, start).to(self.device)
        self.method = method.to(memory_format=method.memory_format)
        check_sharding(self.method, recipe)
        if recipe.compile:
            self.method.encoder.compile()
        labels = training_labels(self.method, data.train, recipe, self.device)
        self.batches = Batches(data.train, labels, recipe, self.device)
        end = stable.passes(recipe.stable, data.train)
        self.plan = plan(recipe, self.method, len(self.batches), teacher_passes, end)
        self.average = build_average(self.method.published(), recipe)
        self.whole = self._shared_out()
        self.again = found_blocks(self.method, recipe)
        self.optimizer = build_optimizer(
            self.method, recipe.optimizer, self.method.rates()
        )
        self.schedule = build_schedule(
            self.optimizer, recipe.optimizer, self.plan.steps
        )
        self.state = State()

    def _shared_out(self) -> Whole | None:
        """Spreads the work over processes; with FSDP the weights too."""
        if self.recipe.sharding == "none" or distributed.world() == 1:
            self.module = distributed.parallel(self.method, self.device)
            return None
        whole = Whole(self.method, self.average, leads=self.leads)
        self.module = shard(self.method, self.average, self.device)
        return whole

    def gather(self) -> None:
        """Brings whole networks up to date, where processes have shares of them."""
        if self.whole is not None:
            self.whole.gather(self.method, self.average, self.optimizer)

    @property
    def plain(self) -> Method:
        """The method with whole networks, as they were when they were gathered."""
        whole = None if self.whole is None else self.whole.method
        return self.method if whole is None else whole

    @property
    def averaged(self) -> nn.Module | None:
        """The average over time, likewise."""
        if self.average is None:
            return None
        whole = None if self.whole is None else self.whole.average
        found: nn.Module = self.average.module if whole is None else whole
        return found

    def run_to_the_end(self) -> Path:
        """All epochs that are left; returns the folder of the last encoder."""
        self.gather()
        self._begin()
        while self.state.epoch < self.plan.epochs:
            began = time.monotonic()
            means = self._epoch(self.state.epoch)
            spent = self.state.spent + time.monotonic() - began
            self.state.epoch += 1
            self.state.seconds += spent
            self.state.step, self.state.sums, self.state.spent = 0, {}, 0.0
            if self.is_looked_at():
                self._settle()
            self.gather()
            self._note(means, spent)
        self._finish()
        distributed.barrier()
        return self.run.path / "last"

    def is_looked_at(self) -> bool:
        """True every few epochs and at the end."""
        every, epoch = self.recipe.monitor.every, self.state.epoch
        return epoch >= self.plan.epochs or bool(every and epoch % every == 0)

    def _settle(self) -> None:
        """Measures the batch norms of the averaged weights; every process does."""
        if self.average is None or self.recipe.norms == "frozen":
            return
        if has_statistics(self.average.module):
            self.method.train()
            with precision(self.recipe, self.device):
                measure_norms(self.method, self.average.module, self._measured())

    def _measured(self) -> Iterator[Batch]:
        """Batches for `_settle`, the same ones at every look."""
        count = min(len(self.batches), math.ceil(IMAGES / self.recipe.batch))
        for index, rows in zip(range(count), self.batches.epoch(0), strict=False):
            for part in rows.split(self.recipe.accumulate):
                yield self._batch(part, "norms", index, self.plan.steps - 1)

    # What only the leading process does; see `pretrain.leader`.

    def _begin(self) -> None:
        """Before the first epoch."""

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return False

    def _between(self, spent: float) -> None:
        """When one is due in the middle of an epoch, with the seconds of this call."""

    def _note(self, means: dict[str, float], spent: float) -> None:
        """After each epoch, with the means of the loss parts and its seconds."""

    def _finish(self) -> None:
        """After the last one."""

    def _epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training images; returns the mean of each loss part."""
        self.module.train()
        sums, first, count = self.state.sums, self.state.step, len(self.batches)
        began = time.monotonic()
        for index, rows in enumerate(self.batches.epoch(epoch, first), start=first):
            done = epoch * self.plan.steps_per_epoch + index
            values = self.step(rows, done)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            spent = time.monotonic() - began
            rate = (index + 1 - first) * self.recipe.batch / spent
            shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            self.state.step = index + 1
            if index + 1 < count and self._is_asked():
                self._check_weights()
                self.gather()
                self._between(spent)
            self.around.report.step(done + 1, f"{rate:.0f} images/s, {shown}")
        self._check_weights()
        return {name: total / count for name, total in sums.items()}

    def _is_asked(self) -> bool:
        """Whether a checkpoint is due; where weights are shared, it takes all."""
        due = self._is_due()
        return due if self.whole is None else distributed.told(due, self.device)

    def step(self, rows: Rows, done: int) -> dict[str, float]:
        """One optimiser step; returns the loss parts, averaged over processes."""
        self.schedule.step_update(done + 1)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        parts = rows.split(self.recipe.accumulate)
        for number, part in enumerate(parts, start=1):
            with distributed.together(self.module, when=number == len(parts)):
                losses = self.losses(part, done)
                values = self._finite(losses, part.x, done)
                (torch.stack(list(losses.values())).sum() / len(parts)).backward()
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value / len(parts)
        if self.recipe.optimizer.clip is not None:
            nn.utils.clip_grad_norm_(
                self.method.parameters(), self.recipe.optimizer.clip
            )
        self.method.before_step(done)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.method.published(), done)
        return sums

    def losses(self, part: Rows, done: int) -> LossParts:
        """Of some images of a step, with gradients."""
        batch = self._batch(part, "step", done, done)
        with precision(self.recipe, self.device), checkpointed(self.again):
            found: LossParts = self.module(batch)
        return found

    def _batch(
        self, part: Rows, purpose: Literal["step", "norms"], index: int, done: int
    ) -> Batch:
        """With draws of the images in their epoch, or of step `index`."""
        seed = self.recipe.seed
        draws: Generator = (
            ImageGenerator(
                seed,
                purpose,
                index // self.plan.steps_per_epoch,
                part.images,
                self.device,
            )
            if self.recipe.draws == "image"
            else generator(seed, purpose, index, distributed.rank())
        )
        progress = done / self.plan.steps
        return Batch(x=part.x, y=part.y, generator=draws, progress=progress)

    def _finite(self, parts: LossParts, x: Tensor, done: int) -> dict[str, float]:
        """The loss parts as numbers; stops the run if one is not finite."""
        stacked = distributed.mean(torch.stack(list(parts.values())).float())
        values = dict(zip(parts, stacked.tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                self._stop(f"the loss part '{name}' is {value}{self._where(x)}", done)
        return values

    def _where(self, x: Tensor) -> str:
        """The layer that is to blame, if clean images show it."""
        with precision(self.recipe, self.device):
            layer = first_broken(self.method.encoder, x)
        if layer is None:
            return ""
        half = self.recipe.precision != "fp32"
        advice = f" in {self.recipe.precision} (precision: fp32 may mend it)" * half
        return f", first in layer '{layer}' of the encoder{advice}"

    def _check_weights(self) -> None:
        """Stops the run before weights that are not finite reach a checkpoint.

        The last step of an epoch can break them and still have had a finite loss.
        """
        for name, value in self.method.state_dict().items():
            if not is_finite(value):
                last = self.state.epoch * self.plan.steps_per_epoch + self.state.step
                self._stop(f"the weights '{name}' are not finite", last - 1)

    def _stop(self, what: str, done: int) -> NoReturn:
        kept = (
            f"the last good checkpoint is {self.run.checkpoint_file}"
            if self.run.checkpoint_file.is_file()
            else "there is no checkpoint yet"
        )
        raise RobrepError(
            f"{what} at step {done + 1} of {self.plan.steps} (epoch "
            f"{self.state.epoch + 1}); {kept}; lower optimizer.lr or set "
            "optimizer.clip, in another run folder"
        )

    def resume(self) -> None:
        """Takes up the last checkpoint, if there is one."""
        saved, listed = self.run.load(truncate=self.leads), self.listed()
        if saved is None:
            return
        if saved[LISTED] not in (None, listed):
            raise UserError(
                f"the files of '{self.data.train.name}' are others than when "
                f"{self.run.path} was begun: some were added, removed, renamed or "
                "changed; bring them back to go on with it, or use another folder with "
                "--output"
            )
        try:
            load(self.method, saved["method"])
            load_optimizer(self.optimizer, saved["optimizer"])
            if self.average is not None:
                load(self.average.module, saved["average"])
            self.state = State.read(saved, self.plan)
        except Exception as error:  # torch and its optimisers fail in many ways
            raise UserError(
                f"{self.run.checkpoint_file} does not fit this run "
                f"({plain_reason(error)}); remove it to start again"
            ) from None

    def listed(self) -> str | None:
        """What tells the image files from others; None of images that are no files."""
        images = self.data.train
        return None if images.list_files is None else images.list_files()

    def export(self) -> Encoder:
        """The encoder as it would be published now."""
        encoder = self.plain.export(self.averaged)
        if self.recipe.stable is None:
            return encoder
        return stable.ended(encoder, self.data.train, self.recipe, self.device)
