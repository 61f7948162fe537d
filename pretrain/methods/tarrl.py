"""TARRL: a self-supervised loss plus a task-independent robustness regulariser.

L = L_SSL(v1, v2) + weight * mean_x R(x),   R(x) = max_delta dist(g(x + delta), ref(x)).

The loss of any predictor on g under attack is at most its clean loss plus a constant
of its head times R, so no task has to be known. Distances are between standardised
features (`pretrain.losses.Spread`): R counts in units of the features' own spread, and
shrinking them gains nothing.

With `reference: teacher` the self-supervised solution comes from a clean teacher g_T
that the encoder starts from, and L_SSL is the clean distance to it:
L = dist(g(x), g_T(x)) + weight * R(x), ref = g_T(x), in units of the teacher's spread.

Source: Nguyen, Lim & Torr 2022, arXiv 2203.07596 (abstract; the published text leaves
distance, layer, input and reference open, hence the options). The teacher is ours,
after DeACL (arXiv 2207.10899).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pretrain import batchnorm
from pretrain.batchnorm import ADVERSARIAL, CLEAN
from pretrain.losses import Distance, Spread, distances, nt_xent
from pretrain.methods.base import Batch, Cost, LossParts, Method
from pretrain.recipe import AttackSettings, Section
from robrep_eval.attacks.pgd import frozen


class TarrlOptions(Section):
    """The design choices of the regulariser."""

    weight: Annotated[float, Field(ge=0)] = 10.0
    """lambda."""
    ramp: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training over which the weight rises linearly from 0."""
    distance: Distance = "squared"
    layer: Literal["encoder", "projector"] = "encoder"
    """Where the displacement is measured."""
    inputs: Literal["raw", "one", "both"] = "one"
    """What is attacked: the image itself, the first view, or both views."""
    scale: Literal["standardised", "none"] = "standardised"
    reference: Literal["self", "stopped", "eval", "teacher"] = "self"
    """g(x) of the same pass; the same without gradient; of a pass in eval mode without
    gradient; the teacher's g_T(x)."""
    norms: Literal["single", "dual"] = "single"
    """Batch norms shared by clean and adversarial images, or one set for each."""
    adversarial_view: bool = False
    """Also contrast the adversarial first view with the clean second one."""
    temperature: Annotated[float, Field(gt=0)] = 0.5


class TARRL(Method):
    """Displacement beside NT-Xent, or beside a teacher."""

    Options = TarrlOptions
    matches = True

    @classmethod
    def needs_teacher(cls, options: Section) -> bool:
        """With `reference: teacher`."""
        return getattr(options, "reference", None) == "teacher"

    @classmethod
    def splits(cls, options: Section) -> bool:
        """Beside a teacher, in features' own units: no contrast, no batch's spread."""
        return cls.needs_teacher(options) and getattr(options, "scale", "") == "none"

    def sets(self) -> int:
        """Two with `norms: dual`."""
        return 2 if self.options.norms == "dual" else 1

    def projector_sets(self) -> int:
        """None beside a teacher; a second one only if adversarial images need it."""
        o = self.options
        if o.reference == "teacher":
            return 0
        return self.sets() if o.adversarial_view or o.layer == "projector" else 1

    def forward(self, batch: Batch) -> LossParts:
        """Attack, clean pass, adversarial pass."""
        if self.teacher is not None:
            return self._beside_teacher(batch, self.teacher)
        o = self.options
        v1, v2 = self.view(batch), self.view(batch)
        n = len(v1)
        clean, at = {
            "raw": ([v1, v2, batch.x], slice(2 * n, None)),
            "one": ([v1, v2], slice(n)),
            "both": ([v1, v2], slice(None)),
        }[o.inputs]
        x = torch.cat(clean)
        reference = self._eval_features(x[at])
        x_adv = self._displaced(x[at], reference, self._spread(reference), batch)
        z, z_adv = self._features(x, x_adv)
        u = self.projector(z[: 2 * n])
        parts = {"contrast": nt_xent(u[:n], u[n:], temperature=o.temperature)}
        if o.adversarial_view:
            with batchnorm.using(self.published_norms(), self.projector):
                u_adv = self.projector(z_adv[:n])
            parts["contrast_adv"] = nt_xent(u_adv, u[n:], temperature=o.temperature)
        if o.layer == "projector":
            with batchnorm.using(self.published_norms(), self.projector):
                z, z_adv = self.projector(z), self.projector(z_adv)
        anchor = reference if o.reference == "eval" else z[at]
        if o.reference == "stopped":
            anchor = anchor.detach()
        moved = self._distance(z_adv, anchor, self._spread(anchor))
        parts["displacement"] = self._weight(batch) * moved.mean()
        return parts

    def _beside_teacher(self, batch: Batch, teacher: nn.Module) -> LossParts:
        x = batch.x if self.options.inputs == "raw" else self.weak_view(batch)
        with torch.no_grad():
            reference = teacher(x)
        spread = self._spread(reference)
        x_adv = self._displaced(x, reference, spread, batch)
        z, z_adv = map(self.match, self._features(x, x_adv))
        return {
            "clean": self._distance(z, reference, spread).mean(),
            "displacement": self._weight(batch)
            * self._distance(z_adv, reference, spread).mean(),
        }

    def cost(self, attack: AttackSettings) -> Cost:
        """Trained clean views, the reference, the attack, the adversarial pass."""
        o = self.options
        if o.reference == "teacher":
            clean, attacked = 1, 1
        else:
            clean = 3 if o.inputs == "raw" else 2
            attacked = 2 if o.inputs == "both" else 1
        trained = clean + attacked
        search = attacked * attack.steps
        return Cost(trained + attacked + search, search, trained)

    def _features(self, x: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Clean and adversarial features: one pass, or one per set of batch norms."""
        if self.sets() == 1:
            z = self.encoder(torch.cat([x, x_adv]))
            return z[: len(x)], z[len(x) :]
        with batchnorm.using(ADVERSARIAL, self.encoder):
            z_adv = self.encoder(x_adv)
        with batchnorm.using(CLEAN, self.encoder):
            return self.encoder(x), z_adv

    def _layer(self, x: Tensor) -> Tensor:
        return self.project(x) if self.options.layer == "projector" else self.follow(x)

    def _eval_features(self, x: Tensor) -> Tensor:
        """Clean features of the exported network, without gradients."""
        networks = (self.encoder, self.projector)
        with (
            torch.no_grad(),
            frozen(*networks),
            batchnorm.using(self.published_norms(), *networks),
        ):
            return self._layer(x)

    def _displaced(
        self, x: Tensor, reference: Tensor, spread: Spread, batch: Batch
    ) -> Tensor:
        """Images whose features lie as far as possible from the reference.

        From a random start: at delta = 0 the squared distance to the encoder's own
        features has no gradient.
        """

        def objective(images: Tensor) -> Tensor:
            return self._distance(self._layer(images), reference, spread)

        return self.attack(objective, x, batch, norms=self.published_norms())

    def _distance(self, z: Tensor, reference: Tensor, spread: Spread) -> Tensor:
        return distances(
            spread.standardise(z), spread.standardise(reference), self.options.distance
        )

    def _spread(self, z: Tensor) -> Spread:
        return Spread.none() if self.options.scale == "none" else Spread.of(z)

    def _weight(self, batch: Batch) -> float:
        o = self.options
        return float(o.weight * min(1.0, batch.progress / o.ramp if o.ramp else 1.0))
