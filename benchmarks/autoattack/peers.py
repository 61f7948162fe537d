"""pyautoattack, and what other packages call AutoAttack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.autoattack.timing import stopwatch
from robrep_eval.randomness import seeded
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.threat import ThreatModel

BATCH = 128
"""Images in one batch of pyautoattack."""


class Counting(nn.Module):
    """Counts the rows that pass forward through a classifier."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.inner(x)  # type: ignore[no-any-return]


def holds(classifier: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Bool (N,): which images are classified as labelled."""
    with torch.no_grad():
        return torch.eq(classifier(x).argmax(dim=1), y)


def member(
    classifier: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, name: str
) -> tuple[Tensor, int]:
    """One member of pyautoattack's standard version: images, and forward rows."""
    from pyautoattack import AutoAttack

    counting = Counting(classifier)
    runner = AutoAttack(counting, norm=threat.norm, eps=threat.eps, seed=0)
    runner.attacks_to_run = [name]
    with seeded(0):
        x_adv, _ = runner.run_standard_evaluation(x, y, batch_size=BATCH)
    return x_adv, counting.rows


def official(
    classifier: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, seed: int
) -> Tensor:
    """pyautoattack's standard version: bool (N,), which examples stay right."""
    from pyautoattack import AutoAttack

    runner = AutoAttack(classifier, norm=threat.norm, eps=threat.eps, seed=seed)
    with seeded(seed):
        images, _ = runner.run_standard_evaluation(x, y, batch_size=BATCH)
    return holds(classifier, images, y)


def namesakes(classifier: Classifier, data: Dataset, eps: float) -> None:
    """What ART and torchattacks call AutoAttack: other attacks; where they run."""
    x, y = data.images(slice(None)), data.labels
    for name, attack in (("ART", _art), ("torchattacks", _torchattacks)):
        spent: dict[str, float] = {}
        try:
            with stopwatch(spent, name):
                adversarial = attack(classifier, x, y, eps)
        except ImportError as error:
            print(f"{name}'s AutoAttack (a different attack): does not run: {error}")
            continue
        robust = int(holds(classifier, adversarial, y).sum())
        print(
            f"{name}'s AutoAttack (a different attack): {spent[name]:.1f} s, "
            f"{robust} of {len(x)} robust"
        )


def _art(classifier: Classifier, x: Tensor, y: Tensor, eps: float) -> Tensor:
    from art.attacks.evasion import AutoAttack

    from robrep_eval.adapters import to_art

    attack = AutoAttack(to_art(classifier), eps=eps, eps_step=eps / 4, batch_size=BATCH)
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def _torchattacks(classifier: Classifier, x: Tensor, y: Tensor, eps: float) -> Tensor:
    import torchattacks

    attack = torchattacks.AutoAttack(classifier, norm="Linf", eps=eps, n_classes=10)
    return attack(x, y)  # type: ignore[no-any-return]
