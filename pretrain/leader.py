"""The one process that writes: metrics, quick looks, checkpoints, encoders, remarks.

Of several processes under torchrun only the first leads; the others run the same loop.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from pretrain.cards import training_record
from pretrain.monitor import Look, look
from pretrain.session import Session
from zoo.encoder import Encoder


class LeadingSession(Session):
    """A session that also tells and writes."""

    leads: ClassVar[bool] = True
    saved: float
    """When the last checkpoint was written, or the run begun."""

    def _begin(self) -> None:
        self.saved = time.monotonic()
        self._announce()

    def _note(self, means: dict[str, float], spent: float) -> None:
        self._log(means, spent, self._look())
        if self._is_due():
            self._checkpoint()
            self.saved = time.monotonic()

    def _finish(self) -> None:
        self._publish("last", self.export())
        self.run.draw(self.recipe.name)

    def _look(self) -> Look | None:
        """A quick look every few epochs and at the end; keeps the best encoder."""
        every, epoch = self.recipe.monitor.every, self.state.epoch
        if not every or (epoch % every and epoch < self.plan.epochs):
            return None
        encoder = self.export()
        seen = look(encoder, self.data, self.recipe, self.device)
        if seen.score > self.state.best:
            self.state.best = seen.score
            self._publish("best", encoder)
        return seen

    def _log(self, means: dict[str, float], spent: float, seen: Look | None) -> None:
        images = self.plan.steps_per_epoch * self.recipe.batch
        line: dict[str, Any] = {
            "epoch": self.state.epoch,
            "loss": sum(means.values()),
            **{f"loss/{name}": value for name, value in means.items()},
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": images / spent,
            "seconds": self.state.seconds,
        }
        if seen is not None:
            line |= {"held_out/clean": seen.clean, "held_out/robust": seen.robust}
            robust = "" if seen.robust is None else f", PGD {100 * seen.robust:.1f}%"
            self.around.report.say(
                f"epoch {self.state.epoch}: held-out probe "
                f"{100 * seen.clean:.1f}%{robust}"
            )
        self.run.log(line)
        if seen is not None:
            self.run.draw(self.recipe.name)

    def _is_due(self) -> bool:
        minutes = (time.monotonic() - self.saved) / 60
        return (
            minutes >= self.recipe.checkpoint_minutes
            or self.state.epoch == self.plan.epochs
        )

    def _checkpoint(self) -> None:
        average = None if self.average is None else self.average.module.state_dict()
        self.run.save(
            {
                "epoch": self.state.epoch,
                "seconds": self.state.seconds,
                "best": self.state.best,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": average,
            }
        )

    def _publish(self, kind: str, encoder: Encoder) -> None:
        training = training_record(
            self.recipe,
            self.data.train,
            self.plan,
            self.state.epoch,
            self.state.seconds,
            self.around.command,
        )
        self.run.publish(kind, encoder, self.recipe, training)

    def _announce(self) -> None:
        plan, state = self.plan, self.state
        say = self.around.report.say
        if state.epoch >= plan.epochs:
            say(f"{self.run.path} is complete: nothing left to do")
            return
        say(
            f"{self.recipe.method} on {self.recipe.data}: {len(self.data.train)} "
            f"images ({len(self.data.held_out)} held out), {plan.epochs} epochs of "
            f"{plan.steps_per_epoch} steps, {plan.passes:.4g} passes per image"
            + (f"; resumed after epoch {state.epoch}" * bool(state.epoch))
        )
        done = state.epoch * plan.steps_per_epoch
        self.around.report.begin(self.recipe.name, plan.steps, done)
