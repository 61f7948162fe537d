"""One training run of an adversarial probe: a head (ALF) or encoder and head (AFF).

Sources: ALF and AFF as in the RobustSSL benchmark (and Jiang et al. 2020, arXiv
2010.13337); TRADES: Zhang et al. 2019, arXiv 1901.08573, equation 5; starting full
fine-tuning from a fitted head: Kumar et al. 2022, arXiv 2202.10054.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from robrep_eval.attacks.pgd import ascend, frozen
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.threat import ThreatModel

SMALLEST_BATCH = 32
START_NOISE = 1e-3
"""Deviation of TRADES's start: at the clean image its gradient is exactly zero."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One protocol for every encoder and dataset."""

    rates: tuple[float, ...]
    """Learning rates of SGD, of which the held-out images choose one."""
    batch: int
    """Images per step; a tenth of a small training set, but not fewer than 32."""
    decays: tuple[float, float]
    """Shares of the epochs after which the rate falls to a tenth."""
    epochs: int = 25
    min_steps: int = 100
    """Small training sets get as many more epochs as this takes."""
    trial_share: float = 0.2
    """Length of the runs that the learning rate is chosen by."""
    momentum: float = 0.9
    weight_decay: float = 2e-4
    steps: int = 10
    """Of the attack in training."""
    relative_step: float = 0.25
    """Length of its steps as a share of eps: 2/255 of 8/255."""
    beta: float = 6.0
    """Weight of TRADES's robust term (AFF only)."""
    validation_steps: int = 20
    seed: int = 0

    def batch_for(self, n: int) -> int:
        """Images per step on a set of n."""
        return min(self.batch, max(SMALLEST_BATCH, n // 10))

    def epochs_for(self, n: int, *, trial: bool) -> int:
        """Number of epochs over a set of n images."""
        batches = math.ceil(n / self.batch_for(n))
        epochs = max(self.epochs, math.ceil(self.min_steps / batches))
        return math.ceil(self.trial_share * epochs) if trial else epochs


@dataclass(frozen=True)
class Scale:
    """Features are centred and scaled by one number before the head sees them.

    Learning rates then mean the same for every encoder. One number, not one for each
    feature: a feature that is all but constant in the beginning would be blown up as
    soon as the encoder moves, and the training diverges.
    """

    center: Tensor
    """(d,)"""
    spread: float

    @classmethod
    def of(cls, z: Tensor) -> Scale:
        """From the clean features (N, d) of the training images."""
        spread = float(z.var(dim=0, correction=0).mean().sqrt())
        return cls(z.mean(dim=0), spread if spread > 0 else 1.0)

    def apply(self, z: Tensor) -> Tensor:
        return (z - self.center) / self.spread

    def into(self, head: nn.Linear) -> nn.Linear:
        """A head for scaled features, made one for plain features."""
        made = nn.Linear(head.in_features, head.out_features).to(head.weight.device)
        with torch.no_grad():
            made.weight.copy_(head.weight / self.spread)
            made.bias.copy_(head.bias - made.weight @ self.center)
        return made

    def out_of(self, head: nn.Linear) -> nn.Linear:
        """The other way round."""
        made = nn.Linear(head.in_features, head.out_features).to(head.weight.device)
        with torch.no_grad():
            made.weight.copy_(head.weight * self.spread)
            made.bias.copy_(head.bias + head.weight @ self.center)
        return made


class HeadTraining:
    """One run on one part of the training split.

    Args:
        encoder: Left as it is; AFF trains a copy.
        head: Where the head starts, for plain features: the clean linear probe.
        scale: Of the features.
        data: What is trained on, read batch by batch.
        threat: Of the attack in training.
        full: AFF instead of ALF.
        settings: The protocol.
        rate: Learning rate.
        device: Where to train.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Linear,
        scale: Scale,
        data: Dataset,
        threat: ThreatModel,
        *,
        full: bool,
        settings: TrainingSettings,
        rate: float,
        device: str,
    ) -> None:
        self.settings, self.threat, self.device = settings, threat, device
        self.data, self.full = data, full
        self.encoder = copy.deepcopy(encoder).to(device) if full else encoder
        self.scale = Scale(scale.center.to(device), scale.spread)
        self.head = self.scale.out_of(copy.deepcopy(head).to(device))
        self.head.requires_grad_(True)
        self.rate, self.batch = rate, settings.batch_for(len(data))
        self.parameters = [*self.head.parameters()]
        if full:
            self.encoder.requires_grad_(True)
            self.parameters += self.encoder.parameters()
        self.optimizer = torch.optim.SGD(
            self.parameters,
            lr=rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.generator = torch.Generator().manual_seed(settings.seed)

    def logits(self, x: Tensor) -> Tensor:
        """Of encoder, scale and head."""
        return self.head(self.scale.apply(self.encoder(x)))  # type: ignore[no-any-return]

    def run(
        self,
        on_progress: Callable[[float], None],
        *,
        trial: bool = False,
        begin: int = 0,
        after_epoch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """All epochs from `begin` on; the last weights count.

        Args:
            on_progress: Called with the share of the work done.
            trial: A shorter run, to compare learning rates.
            begin: Epochs done before, if `load_state` brought them back.
            after_epoch: Called with the number of epochs done.
        """
        batches = math.ceil(len(self.data) / self.batch)
        epochs = self.settings.epochs_for(len(self.data), trial=trial)
        decays = [math.ceil(share * epochs) for share in self.settings.decays]
        for epoch in range(begin, epochs):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * 0.1 ** sum(epoch >= at for at in decays)
            for at, (x, y) in enumerate(self._batches()):
                self._step(x, y)
                on_progress((epoch + (at + 1) / batches) / epochs)
            after_epoch(epoch + 1)

    def state(self) -> dict[str, Tensor]:
        """Weights, momentum and random state, to go on from another time."""
        kept = {"generator": self.generator.get_state()}
        for name, module in self._modules().items():
            kept |= {f"{name}.{k}": v.cpu() for k, v in module.state_dict().items()}
        for at, parameter in enumerate(self.parameters):
            moved = self.optimizer.state[parameter].get("momentum_buffer")
            if moved is not None:
                kept[f"momentum.{at}"] = moved.cpu()
        return kept

    def load_state(self, kept: dict[str, Tensor]) -> None:
        """What `state` returned, of a run of the same arguments."""
        self.generator.set_state(kept["generator"])
        for name, module in self._modules().items():
            own = {k.removeprefix(f"{name}."): v for k, v in kept.items()}
            module.load_state_dict({k: own[k] for k in module.state_dict()})
        for at, parameter in enumerate(self.parameters):
            if f"momentum.{at}" in kept:
                moved = kept[f"momentum.{at}"].to(self.device)
                self.optimizer.state[parameter]["momentum_buffer"] = moved

    def _modules(self) -> dict[str, nn.Module]:
        """What is trained."""
        return {"head": self.head} | ({"encoder": self.encoder} if self.full else {})

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.data), generator=self.generator)
        for rows in order.split(self.batch):
            if len(rows) > 1 or not self.full:  # one image has no batch statistics
                x = self.data.images(rows).to(self.device)
                yield x, self.data.labels[rows].to(self.device)

    def _step(self, x: Tensor, y: Tensor) -> None:
        loss = self.trades(x, y) if self.full else self.adversarial(x, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def adversarial(self, x: Tensor, y: Tensor) -> Tensor:
        """ALF: mean cross-entropy at adversarial images; the encoder in eval mode."""
        with frozen(self.encoder, self.head):
            z = self.scale.apply(self.encoder(self.attack(x, y, self.settings.steps)))
        return cross_entropy(self.head(z), y)

    def trades(self, x: Tensor, y: Tensor) -> Tensor:
        """AFF: clean cross-entropy plus beta KL(clean || adversarial)."""
        with frozen(self.encoder, self.head):
            with torch.no_grad():
                target = log_softmax(self.logits(x), dim=1)

            def divergence(images: Tensor) -> Tensor:
                found = log_softmax(self.logits(images), dim=1)
                return _divergence(found, target)

            noise = torch.randn(x.shape, generator=self.generator).to(x)
            x_adv = ascend(
                divergence,
                x,
                self.threat,
                steps=self.settings.steps,
                step_size=self.settings.relative_step * self.threat.eps,
                start=x + START_NOISE * noise,
            )
        self.encoder.train()
        clean, moved = self.logits(x), self.logits(x_adv)
        self.encoder.eval()
        robust = _divergence(log_softmax(moved, dim=1), log_softmax(clean, dim=1))
        return cross_entropy(clean, y) + self.settings.beta * robust.mean()

    def attack(self, x: Tensor, y: Tensor, steps: int) -> Tensor:
        """PGD on the cross-entropy, from a uniform start."""

        def loss(images: Tensor) -> Tensor:
            return cross_entropy(self.logits(images), y, reduction="none")

        return ascend(
            loss,
            x,
            self.threat,
            steps=steps,
            step_size=self.settings.relative_step * self.threat.eps,
            generator=self.generator,
        )

    def held(self, data: Dataset) -> int:
        """How many images stay correct under PGD; by this the rate is chosen."""
        right = 0
        with frozen(self.encoder, self.head):
            for rows in torch.arange(len(data)).split(self.batch):
                x = data.images(rows).to(self.device)
                y = data.labels[rows].to(self.device)
                x_adv = self.attack(x, y, self.settings.validation_steps)
                with torch.no_grad():
                    right += int((self.logits(x_adv).argmax(dim=1) == y).sum())
        return right

    def classifier(self) -> Classifier:
        """What was trained, with the scale folded into the head."""
        return Classifier(
            self.encoder,
            self.scale.into(self.head),
            classes=self.head.out_features,
            shape=self.data.shape,
        )


def _divergence(found: Tensor, target: Tensor) -> Tensor:
    """KL(target || found) per row, from log-probabilities."""
    return kl_div(found, target, log_target=True, reduction="none").sum(dim=1)
