"""The one process that writes: metrics, quick looks, checkpoints, encoders, remarks.

Of several processes under torchrun only the first leads; the others run the same loop.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from pretrain import distributed
from pretrain.cards import training_record
from pretrain.data import watched
from pretrain.monitor import FeatureLook, Look, farther, feature_look, look
from pretrain.progress import Silent
from pretrain.run_folder import LISTED
from pretrain.session import Session
from pretrain.trial import seconds_per_step
from zoo.encoder import Encoder


class LeadingSession(Session):
    """A session that also tells and writes."""

    leads: ClassVar[bool] = True
    saved: float
    """When the last checkpoint was written, or the run begun."""
    before: Look | FeatureLook | None = None
    """Of the encoder that the run started from."""
    after: Look | FeatureLook | None = None
    """The latest."""

    def _begin(self) -> None:
        self.saved = time.monotonic()
        self._announce()

    def _is_due(self) -> bool:
        """Epochs of hours have checkpoints in the middle."""
        minutes = (time.monotonic() - self.saved) / 60
        return 0 < self.recipe.checkpoint_minutes <= minutes

    def _between(self, spent: float) -> None:
        before, self.state.spent = self.state.spent, self.state.spent + spent
        self._checkpoint()
        self.state.spent = before
        self.saved = time.monotonic()

    def _note(self, means: dict[str, float], spent: float) -> None:
        seen = self._look()
        self.after = seen or self.after
        self._log(means, spent, seen)
        if self._is_due_after():
            self._checkpoint()
            self.saved = time.monotonic()

    def _finish(self) -> None:
        self._publish("last", self.export())
        self.run.draw(self.recipe.name)
        worse = farther(self.before, self.after)
        if worse:
            self.around.report.say(worse)

    def _look(self) -> Look | FeatureLook | None:
        """A quick look every few epochs and at the end; keeps the best encoder."""
        if not self._is_watched() or not self.is_looked_at():
            return None
        encoder = self.export()
        seen = self._seen(encoder)
        if seen.score > self.state.best:
            self.state.best = seen.score
            self._publish("best", encoder)
        return seen

    def _is_watched(self) -> bool:
        return watched(self.recipe, self.data.train)

    def _seen(self, encoder: Encoder) -> Look | FeatureLook:
        """Without labels where there are none, or an encoder to compare with."""
        start, labelled = self.start, self.data.train.labelled
        if labelled and (start is None or self.recipe.threat is None):
            return look(encoder, self.data, self.recipe, self.device)
        return feature_look(
            None if start is None else start.encoder.to(self.device),
            self.plain.export(self.averaged),
            self.plain.match,
            self.data,
            self.recipe,
        )

    def _log(
        self,
        means: dict[str, float],
        spent: float,
        seen: Look | FeatureLook | None,
    ) -> None:
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
            line |= {f"held_out/{name}": v for name, v in seen.figures().items()}
            self.around.report.say(f"epoch {self.state.epoch}: held-out {seen}")
        self.run.log(line)
        if seen is not None:
            self.run.draw(self.recipe.name)

    def _is_due_after(self) -> bool:
        """At the end of an epoch."""
        minutes = (time.monotonic() - self.saved) / 60
        return (
            minutes >= self.recipe.checkpoint_minutes
            or self.state.epoch == self.plan.epochs
        )

    def _checkpoint(self) -> None:
        average, shared = self.averaged, self.whole
        optimizer = self.optimizer.state_dict() if shared is None else shared.optimizer
        self.run.save(
            {
                "epoch": self.state.epoch,
                "seconds": self.state.seconds,
                "best": self.state.best,
                "step": self.state.step,
                "sums": self.state.sums,
                "spent": self.state.spent,
                LISTED: self.listed(),
                "method": self.plain.state_dict(),
                "optimizer": optimizer,
                "average": None if average is None else average.state_dict(),
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
            self.start,
        )
        licence = self.start.licence if self.start else None
        self.run.publish(kind, encoder, self.recipe, training, licence)

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
            + (f"; resumed after epoch {state.epoch}" * bool(state.epoch + state.step))
            + (f" and {state.step} steps" * bool(state.step))
        )
        if self.recipe.monitor.every and not self._is_watched():
            say(
                "no look at held-out images, of which none are held out: without "
                "labels it needs a threat model (--norm Linf --eps 8/255)"
            )
        done = state.epoch * plan.steps_per_epoch + state.step
        if not isinstance(self.around.report, Silent):
            self._announce_trial(plan.steps - done)
        self.around.report.begin(self.recipe.name, plan.steps, done)

    def _announce_trial(self, left: int) -> None:
        """What the steps that are left will take, and where the run starts from."""
        say = self.around.report.say
        if distributed.world() == 1:
            seconds = seconds_per_step(self)
            minutes = seconds * left / 60
            span = f"{minutes:.2g} minutes" if minutes < 90 else f"{minutes / 60:.3g} h"
            say(f"a step takes {seconds:.2g} s here, by a trial: {span} to the end")
        if self.start is not None and self._is_watched() and not self.state.epoch:
            self.before = self._seen(self.export())
            say(f"before the first step: held-out {self.before}")
