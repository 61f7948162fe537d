"""AdvCL: four views, one of them high-pass, and pseudo-label cross-entropy.

L = SupCon(v1, v2 [BN_c], x0 + d_c [BN_a], high-pass x0 [BN_c])
    + weight * mean_m CE(head_m(g(x0 + d_p; BN_l)), label_m),
where d_c maximises the first term alone and d_p the second.

Source: Fan et al. 2021, arXiv 2111.01124. Their pseudo-labels come from clusters of an
ImageNet network's features, which is extra data; ours from a clean teacher trained on
the same images without labels. Their code multiplies the first term by 7.14 (a base
temperature left at 0.07), ours does not.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pretrain import batchnorm
from pretrain.batchnorm import ADVERSARIAL, CLEAN, LABELLED
from pretrain.clustering import cluster
from pretrain.losses import against, multi_positive
from pretrain.methods.base import Batch, Cost, LossParts, Materials, Method
from pretrain.recipe import AttackSettings, Section
from robrep_eval.attacks.pgd import frozen


class AdvCLOptions(Section):
    """Settings of AdvCL."""

    temperature: Annotated[float, Field(gt=0)] = 0.5
    weight: Annotated[float, Field(ge=0)] = 0.2
    clusters: tuple[Annotated[int, Field(ge=2)], ...] = (2, 10, 50, 100, 500)


class AdvCL(Method):
    """Three sets of batch norms in the encoder, one head for each clustering."""

    Options = AdvCLOptions
    starts_from_teacher = False

    def __init__(self, materials: Materials) -> None:
        super().__init__(materials)
        dim = materials.encoder.dim
        self.heads = nn.ModuleList(nn.Linear(dim, k) for k in self.options.clusters)

    @classmethod
    def needs_teacher(cls, options: Section) -> bool:
        """Always, for the pseudo-labels."""
        return True

    @classmethod
    def clusters(cls, options: Section) -> int:
        """Of the finest clustering."""
        return max(getattr(options, "clusters", ()), default=0)

    def sets(self) -> int:
        """Clean, adversarial, adversarial with labels."""
        return 3

    def projector_sets(self) -> int:
        """One: the authors split the encoder's alone."""
        return 1

    def prepare(self, z: Tensor, seed: int) -> Tensor:
        """One clustering for each head."""
        found = [cluster(z, k, seed) for k in self.options.clusters]
        return torch.stack(found, dim=1)

    def forward(self, batch: Batch) -> LossParts:
        """Two attacks, then one pass for each set of batch norms."""
        v1, v2, x0 = self.view(batch), self.view(batch), self.weak_view(batch)
        clean = self.formatted(torch.cat([v1, v2, high_pass(x0)]))
        with torch.no_grad(), frozen(self.encoder, self.projector):
            fixed = self._project(clean, CLEAN).chunk(3)
        contrast = against(list(fixed), temperature=self.options.temperature)

        def displaced(x: Tensor) -> Tensor:
            return contrast(self._project(x, ADVERSARIAL))

        def labelled(x: Tensor) -> Tensor:
            return self._labelled(x, batch.y)

        x_c = self.attack(displaced, x0, batch)
        x_p = self.attack(labelled, x0, batch, self.encoder, self.heads)
        u = [*self._project(clean, CLEAN).chunk(3), self._project(x_c, ADVERSARIAL)]
        return {
            "contrast": multi_positive(u, temperature=self.options.temperature),
            "labels": self.options.weight * self._labelled(x_p, batch.y),
        }

    def cost(self, attack: AttackSettings) -> Cost:
        """Two attacked views, three fixed ones, five trained ones."""
        return Cost(2 * attack.steps + 8, 2 * attack.steps, 5)

    def _project(self, x: Tensor, norms: int) -> Tensor:
        with batchnorm.using(norms, self.encoder, self.projector):
            return self.project(x)

    def _labelled(self, x: Tensor, y: Tensor) -> Tensor:
        with batchnorm.using(LABELLED, self.encoder):
            z = self.encoder(x)
        terms = [F.cross_entropy(h(z), y[:, m]) for m, h in enumerate(self.heads)]
        return torch.stack(terms).mean()


def high_pass(x: Tensor) -> Tensor:
    """Images (N, C, H, W) without the frequencies nearer than H / 4 bins to zero.

    8 bins of 32 pixels, as published; the mean goes too and nothing is clipped.
    """
    height, width = x.shape[-2:]
    fy = torch.fft.fftfreq(height, 1 / height, device=x.device)
    fx = torch.fft.rfftfreq(width, 1 / width, device=x.device)
    kept = fy[:, None].square() + fx.square() >= (height / 4) ** 2
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * kept, s=(height, width))
    return filtered
