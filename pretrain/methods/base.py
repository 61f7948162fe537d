"""What a method is: networks, the views it looks at, and the loss of one batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from pretrain import batchnorm, heads
from pretrain.augment import augment, weak, weakened
from pretrain.randomness import Generator, ImageGenerator
from pretrain.recipe import (
    AttackSettings,
    AugmentSettings,
    ProjectorSettings,
    Section,
)
from robrep_eval.attacks.pgd import ascend, frozen
from zoo.ball import random_start, start_from
from zoo.encoder import Encoder
from zoo.nets.memory_format import memory_format
from zoo.threat import ThreatModel

LossParts = dict[str, Tensor]
"""Loss terms by name, weights included: the loss is their sum."""


@dataclass(frozen=True)
class Cost:
    """Network passes per training image and step, and what they cost.

    A forward pass, a backward pass to the images and one to the weights cost the same
    (three convolutions of equal size), so a full backward pass counts 2.
    """

    forward: float
    to_input: float
    full: float
    """Backward passes through input and weights."""

    @property
    def passes(self) -> float:
        """In forward equivalents."""
        return self.forward + self.to_input + 2 * self.full


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a method is built from."""

    encoder: Encoder
    options: Section
    threat: ThreatModel | None
    attack: AttackSettings
    projector: ProjectorSettings
    augment: AugmentSettings
    classes: int
    teacher: Encoder | None
    frozen_norms: bool = False
    """Batch norms of the encoder use and keep their running statistics."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's work."""

    x: Tensor
    """Images as published, (N, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels or pseudo-labels (N, k), or (N, 0) for methods without."""
    generator: Generator
    """Source of everything random in this step."""
    progress: float = 0.0
    """Share of the training that lies behind, in [0, 1)."""


class NoOptions(Section):
    """For methods without settings of their own."""


class Method(nn.Module):
    """Base of all methods; a subclass gives `forward` and `cost`.

    `forward(batch)` draws its views, runs its inner maximisation and returns the loss
    parts; it is what DDP wraps, so everything that needs gradients happens inside.
    """

    Options: ClassVar[type[Section]] = NoOptions
    labels: ClassVar[bool] = False
    """True if class labels are used."""
    adversarial: ClassVar[bool] = True
    """True if a threat model is needed."""
    normalises: ClassVar[bool] = True
    """False if the encoder must see pixels as they are."""
    archs: ClassVar[tuple[str, ...]] = ()
    """The architectures it can train; empty: any."""
    starts_from_teacher: ClassVar[bool] = True
    """True if the encoder begins with its teacher's weights, where there is one."""
    matches: ClassVar[bool] = False
    """True if the features of an encoder of another width go through `match`, a linear
    layer, before they are compared with the teacher's."""
    shares: ClassVar[bool] = True
    """True if it was tested that processes may hold a share of its weights each."""
    prepared_on: ClassVar[int | None] = None
    """Training images whose features `prepare` is given; None: all."""

    def __init__(self, materials: Materials) -> None:
        super().__init__()
        self.augmentation = materials.augment
        self.threat = materials.threat
        self.inner = materials.attack
        self.options: Any = materials.options
        self.classes = materials.classes
        self.encoder: nn.Module = materials.encoder
        self.projector: nn.Module = (
            heads.projector(materials.encoder.dim, materials.projector)
            if self.projector_sets()
            else nn.Identity()
        )
        self.match: nn.Module = _match(materials) if self.matches else nn.Identity()
        self.frozen_norms = materials.frozen_norms
        self.memory_format = memory_format(self.encoder)
        batchnorm.split(self.encoder, self.sets())
        batchnorm.split(self.projector, self.projector_sets())
        self.teacher: nn.Module | None = None
        if materials.teacher is not None:
            teacher = copy.deepcopy(materials.teacher)
            self.teacher = teacher.eval().requires_grad_(False)

    # What a subclass may say about itself.

    @classmethod
    def needs_teacher(cls, options: Section) -> bool:
        """True if the method starts from a trained encoder."""
        return False

    @classmethod
    def clusters(cls, options: Section) -> int:
        """Most clusters that `prepare` asks for; there must be as many images."""
        return int(getattr(options, "clusters", 0))

    @classmethod
    def splits(cls, options: Section) -> bool:
        """True if the loss of a batch is the mean of the losses of its parts: no image
        meets another one in it, nor in the attack."""
        return False

    def sets(self) -> int:
        """Batch norms in place of each one; see `pretrain.batchnorm`."""
        return 1

    def projector_sets(self) -> int:
        """The same for the projector; 0 for methods without one."""
        return self.sets()

    def published_norms(self) -> int:
        """The set that the published encoder keeps."""
        return batchnorm.ADVERSARIAL if self.sets() > 1 else batchnorm.CLEAN

    def cost(self, attack: AttackSettings) -> Cost:
        """Passes per image and step, for an attack with so many steps."""
        raise NotImplementedError

    def prepare(self, z: Tensor, seed: int) -> Tensor | None:
        """Called once with the teacher's features (N, d) of the training images.

        Returns:
            Pseudo-labels (N, k), int64, or None for methods that use none.
        """
        return None

    def rates(self) -> dict[nn.Module, float]:
        """Networks with a learning rate of their own, and that; without decay."""
        return {}

    def before_step(self, done: int) -> None:
        """Called between backward pass and optimiser; `done` steps lie behind."""

    def published(self) -> nn.Module:
        """The encoder that is exported, before its batch norms are collapsed."""
        return self.encoder

    def forward(self, batch: Batch) -> LossParts:
        """Loss parts of one batch."""
        raise NotImplementedError

    # What subclasses are written with.

    def train(self, mode: bool = True) -> Method:
        """As usual, but a teacher and frozen batch norms stay in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        if self.frozen_norms:
            for module in self.encoder.modules():
                if isinstance(module, batchnorm.RUNNING):
                    module.eval()
        return self

    def follow(self, x: Tensor) -> Tensor:
        """Features in the teacher's space: `match` after the encoder."""
        return self.match(self.encoder(x))  # type: ignore[no-any-return]

    def project(self, x: Tensor) -> Tensor:
        """u = h(g(x))."""
        return self.projector(self.encoder(x))  # type: ignore[no-any-return]

    def view(self, batch: Batch, strength: float = 1.0) -> Tensor:
        """One strong random view of each image."""
        settings = self.augmentation
        if strength < 1:
            settings = weakened(settings, strength)
        return self.formatted(augment(batch.x, settings, batch.generator))

    def weak_view(self, batch: Batch) -> Tensor:
        """One weak random view (shift and mirror image) of each image."""
        return self.formatted(
            augment(batch.x, weak(self.augmentation), batch.generator)
        )

    def formatted(self, x: Tensor) -> Tensor:
        """Images in the memory format of the network."""
        return x.contiguous(memory_format=self.memory_format)

    def attack(
        self,
        objective: Callable[[Tensor], Tensor],
        x: Tensor,
        batch: Batch,
        *networks: nn.Module,
        norms: int = batchnorm.CLEAN,
    ) -> Tensor:
        """The one inner maximisation: images in the ball around `x` that raise it.

        Args:
            objective: As for `robrep_eval.attacks.pgd.ascend`.
            x: Clean views (N, C, H, W).
            batch: For its generator.
            networks: What the objective runs, by default encoder and projector; in
                eval mode inside (unless the recipe asks for train mode), without
                parameter gradients.
            norms: Set of batch norms in use.
        """
        threat, settings = self.threat, self.inner
        assert threat is not None, "checked with the recipe"
        networks = networks or (self.encoder, self.projector)
        start = _start(x, threat, batch.generator)
        with frozen(*networks), batchnorm.using(norms, *networks):
            if settings.mode == "train":
                for network in networks:
                    network.train()
            found = ascend(
                objective,
                x,
                threat,
                steps=settings.steps,
                step_size=step_size(settings, threat),
                start=start,
            )
        return self.formatted(found)

    def export(self, encoder: nn.Module | None = None) -> Encoder:
        """An encoder as it is published: one batch norm, eval mode.

        Args:
            encoder: By default `published`; or an average of it over time.
        """
        plain = batchnorm.collapsed(encoder or self.published(), self.published_norms())
        assert isinstance(plain, Encoder)
        return plain.eval()


def _match(materials: Materials) -> nn.Module:
    """To the teacher's width; nothing where that is the encoder's own."""
    own, teacher = materials.encoder.dim, materials.teacher
    if teacher is None or teacher.dim == own:
        return nn.Identity()
    return nn.Linear(own, teacher.dim)


def _start(x: Tensor, threat: ThreatModel, generator: Generator) -> Tensor:
    """Of an attack: uniform in the ball around each image."""
    if not isinstance(generator, ImageGenerator):
        return random_start(x, threat, generator)
    if threat.norm == "Linf":
        return start_from(x, threat, generator.uniform(len(x), x[0].numel()), None)
    draw = generator.normal if threat.norm == "L2" else generator.uniform
    draws = draw(len(x), x[0].numel())
    return start_from(x, threat, draws, generator.uniform(len(x), 1))


def step_size(settings: AttackSettings, threat: ThreatModel) -> float:
    """As given, or such that the steps together reach across the ball."""
    if settings.step_size is not None:
        return settings.step_size
    return min(threat.eps, 2 * threat.eps / settings.steps)
