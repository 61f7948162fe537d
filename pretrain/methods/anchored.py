"""What methods share that hold attacked features near an encoder's clean ones.

max_d dist(g(x + d), g_0(x)): g_0 is the encoder that the run starts from, or a teacher;
nothing else is needed, no labels and no second view.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.methods.base import Batch, Method
from pretrain.recipe import Section


class Anchored(Method):
    """Weak views, no projector; a subclass gives the distance and the loss."""

    matches = True

    @classmethod
    def needs_teacher(cls, options: Section) -> bool:
        """Always: the anchor."""
        return True

    @classmethod
    def splits(cls, options: Section) -> bool:
        """Yes."""
        return True

    def projector_sets(self) -> int:
        """No projector."""
        return 0

    def distance(self, z: Tensor, anchor: Tensor) -> Tensor:
        """How far features (N, d) lie from the anchor's, (N,)."""
        raise NotImplementedError

    def attacked(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Views x, images in the ball around them, and the anchor's features of x.

        From a random start: at d = 0 the distance of g = g_0 has no gradient.
        """
        assert self.teacher is not None, "checked with the recipe"
        x = self.weak_view(batch)
        with torch.no_grad():
            anchor: Tensor = self.teacher(x)

        def objective(images: Tensor) -> Tensor:
            return self.distance(self.follow(images), anchor)

        return x, self.attack(objective, x, batch), anchor
