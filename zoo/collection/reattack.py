"""The re-attack: what no forward pass can tell, tried on a sample.

An entry proves every fooling, and never that the images that held were attacked. So
whoever doubts it draws some of them by a seed of their own and attacks them. The attack
is not of this floor: packages offer one by the entry point group `robrep.audits`, whose
entries name an `Attack`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zoo import hypergeometric, two_phases
from zoo.batteries import VERSIONS, meaning
from zoo.errors import UserError
from zoo.records import Proportion, Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from zoo.classifier import Classifier
    from zoo.collection.entries import Published
    from zoo.collection.sources import Source
    from zoo.datasets.base import Dataset
    from zoo.threat import ThreatModel

GROUP = "robrep.audits"
AGAIN = 0.02
"""How likely an image said to be robust may fall to another run of the same battery,
with another seed; see docs/reference/zoo.md for what was measured."""
STRONG = frozenset(VERSIONS["standard"])
"""Whoever claims to have run these claims that the re-attack finds next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What an attack came to."""

    names: list[str | None]
    """For each image the attack that fooled it, "(clean)" if it is wrong without any,
    or None."""
    rows: Tensor
    """Which images the adversarials are of, int64 (k,)."""
    adversarials: Tensor
    """float32 (k, C, H, W)."""


class Attack(Protocol):
    """Attacks images, and re-checks what it finds as `zoo.evidence` does."""

    def __call__(
        self,
        classifier: Classifier,
        data: Dataset,
        threat: ThreatModel,
        *,
        seed: int,
        device: str,
        on_progress: Callable[[], None],
    ) -> Attacked:
        """What fell, and to what.

        `on_progress` is to be called now and then: other processes may wait, and take
        one of which they hear nothing for half an hour for hung.
        """


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What a re-attack found."""

    seed: int
    """Of the choice and of the attacks."""
    attacked: int
    robust: int
    """Images said to be robust, of which those were drawn."""
    fallen: dict[int, str]
    """Position in the split of each that fell, and the attack that fooled it."""
    low: int
    """Of the exact 95% interval of how many of the robust ones would fall."""
    high: int
    images: int
    """All of the result."""
    strong: bool
    """Whether all images had the attacks of AutoAttack's standard by its battery."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Sampled:
        """What `dataclasses.asdict` gave, also as JSON text read again."""
        fallen = {int(index): name for index, name in content["fallen"].items()}
        return cls(**{**content, "fallen": fallen})

    @property
    def refuted(self) -> bool:
        """Whether more fell than a second run of the same battery explains.

        An exact one-sided test at 2.5% that an image falls with `AGAIN`: a rate, and
        not a share of these images; one image alone refutes nothing.
        """
        if not self.strong or len(self.fallen) < 2:
            return False
        return Proportion.of(len(self.fallen), self.attacked).low > AGAIN

    def __str__(self) -> str:
        text = (
            f"{len(self.fallen)} of {self.attacked} images fell, drawn from "
            f"{self.robust} said to be robust (seed {self.seed})"
        )
        if self.fallen:
            names = [f"{index} ({name})" for index, name in self.fallen.items()]
            text += f": {', '.join(names)}"
        best, worst = self.robust - self.low, self.robust - self.high
        return (
            f"{text}; of all, {self.low} to {self.high} would (95%), so that the "
            f"robust accuracy is {worst / self.images:.1%} to {best / self.images:.1%} "
            "by this attack"
        )


def find_attack() -> Attack:
    """The attack of an installed package.

    Raises:
        UserError: none, several, or one that cannot be imported.
    """
    found = {entry.value: entry for entry in entry_points(group=GROUP)}
    if len(found) != 1:
        named = ", ".join(sorted(found)) or "none"
        raise UserError(
            f"--attack needs one installed package with an entry point {GROUP}, found "
            f"{named}; install robrep again (pip install --force-reinstall robrep)"
        )
    (entry,) = found.values()
    try:
        attack: Any = entry.load()
    except Exception as error:  # another package's code: it may raise anything
        raise UserError(
            f"the attack of entry point '{entry.value}' cannot be imported "
            f"({type(error).__name__}: {error}); mend or uninstall its package"
        ) from error
    return attack  # type: ignore[no-any-return]


def draw(result: Result, count: int, seed: int) -> list[int]:
    """Rows of the examples to attack again, ascending.

    Args:
        result: Whose robust examples are drawn from.
        count: How many; all if there are fewer.
        seed: Of the choice.
    """
    rows = [
        row
        for row, verdict in enumerate(result.examples.verdict)
        if verdict is Verdict.ROBUST
    ]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return sorted(rows[at] for at in chosen.tolist())


def fresh_seed() -> int:
    """One that nobody could foresee."""
    return secrets.randbelow(2**31)


def reattack(
    source: Source,
    published: Published,
    count: int,
    *,
    seed: int,
    attack: Attack,
    data_dir: Path | None = None,
    device: str = "cpu",
    on_progress: Callable[[], None] = lambda: None,
) -> Sampled:
    """Attacks a sample of the images that an entry says are robust.

    Args:
        source: Where it is published.
        published: As `read_entry` returns it; verified before.
        count: How many images.
        seed: Chosen by the verifier, after the entry was published.
        attack: What attacks; see `find_attack`.
        data_dir: Where the dataset lies.
        device: Where to run the classifier.
        on_progress: Called by the attack now and then.

    Raises:
        UserError: the dataset is not here.
        VerificationError: the entry's files are not what it states.
    """
    from zoo.collection.entries import load_classifier
    from zoo.verification import load_named_dataset

    result = published.result
    rows = draw(result, count, seed)
    fallen = {}
    if rows:
        data = load_named_dataset(result, data_dir).subset(rows)
        classifier = load_classifier(source, published).to(device)
        found = attack(
            classifier,
            data,
            result.threat,
            seed=seed,
            device=device,
            on_progress=on_progress,
        )
        pairs = zip(data.positions.tolist(), found.names, strict=True)
        fallen = {index: name for index, name in pairs if name is not None}
    low, high = hypergeometric.interval(len(fallen), len(rows), result.robust.k)
    return Sampled(
        seed=seed,
        attacked=len(rows),
        robust=result.robust.k,
        fallen=fallen,
        low=low,
        high=high,
        images=result.robust.n,
        strong=claims_strong(result),
    )


def claims_strong(result: Result) -> bool:
    """Of attacks on a sample alone an entry does not claim that they fooled nothing."""
    on_all, _ = two_phases.split(result)
    return meaning(result) is not None and set(on_all) >= STRONG
