"""What further attacks find on an entry's images: from runs, or by an attack now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from zoo.batteries import shown
from zoo.classifier import Classifier
from zoo.collection.audit import Again
from zoo.collection.reattack import draw
from zoo.datasets.base import Dataset
from zoo.datasets.local import noted
from zoo.errors import UserError
from zoo.evidence import check_adversarials
from zoo.evidence_file import Claims
from zoo.evidence_file import read_claims as claims_of_run
from zoo.records import Result, Verdict
from zoo.recount import agree, check_figures
from zoo.result_file import read_result
from zoo.two_phases import STRONGER
from zoo.verification import BLOCK, load_named_dataset


@dataclass
class Gathering:
    """Adversarials of images that a result calls robust, one of each."""

    result: Result
    classifier: Classifier
    data: Dataset
    batteries: list[str] = field(default_factory=list)
    tried: dict[str, int] = field(default_factory=dict)
    """On how many of the images that the result calls robust each battery was tried,
    at least: which ones an earlier call tried it on is not kept."""
    positions: list[int] = field(default_factory=list)
    found_by: list[int] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)

    def add(self, battery: str, rows: Tensor, images: Tensor) -> None:
        """Keeps those that fool the classifier on an image that stood so far.

        Args:
            battery: What found them.
            rows: (n,), of the result's examples.
            images: (n, C, H, W).
        """
        if battery not in self.batteries:
            self.batteries.append(battery)
        verdict = self.result.examples.verdict
        for start in range(0, len(rows), BLOCK):
            part, proposed = rows[start : start + BLOCK], images[start : start + BLOCK]
            check = check_adversarials(
                self.classifier,
                self.data.images(part),
                proposed,
                self.data.labels[part],
                self.result.threat,
            )
            for at in check.fooled.nonzero().flatten().tolist():
                row = int(part[at])
                if verdict[row] is Verdict.ROBUST and row not in self.positions:
                    self.positions.append(row)
                    self.found_by.append(self.batteries.index(battery))
                    self.images.append(proposed[at])

    def note(self, battery: str, count: int) -> None:
        """That it was tried on so many of the images that the result calls robust."""
        self.tried[battery] = max(count, self.tried.get(battery, 0))

    def counts(self) -> list[int]:
        """`tried`, in the order of `batteries`; what fell was tried."""
        fell = Counter(self.found_by)
        return [
            min(self.result.robust.k, max(self.tried[battery], fell[at]))
            for at, battery in enumerate(self.batteries)
        ]

    def claims(self) -> Claims:
        """All of them."""
        none = torch.zeros(0, *self.data.shape)
        return Claims(
            positions=torch.tensor(self.positions, dtype=torch.int64),
            attack_index=torch.tensor(self.found_by, dtype=torch.int64),
            images=torch.stack(self.images) if self.images else none,
        )


@dataclass(frozen=True, kw_only=True)
class Further:
    """An attack on images that the entry calls robust, beside what runs found."""

    again: Again
    """How many images are drawn, by which seed, and what attacks them."""
    known: Container[int] | None = None
    """Positions in the split that fell to just this before: of those drawn only these
    are attacked once more, to have their adversarials. None: all of them are."""
    device: str = "cpu"


def add_run(found: Gathering, run: Path, data_dir: Path | None) -> None:
    """The adversarials of a run, by the images that they are of."""
    result, other = found.result, of_the_same(run, found.result)
    data = load_named_dataset(other, data_dir, noted(run))
    _check_run(run, other, data)
    rows = {index: row for row, index in enumerate(result.examples.index)}
    index = other.examples.index
    seen = zip(index, other.examples.verdict, strict=True)
    attacked = {at for at, said in seen if said is not Verdict.MISCLASSIFIED}
    verdict = result.examples.verdict
    robust = {at for at, row in rows.items() if verdict[row] is Verdict.ROBUST}
    if not attacked & robust:
        raise UserError(
            f"the run in {run} attacked none of the images that the entry calls robust"
        )
    claims = claims_of_run(run, other, data)
    at = [rows.get(index[place], -1) for place in claims.positions.tolist()]
    own = torch.tensor(at, dtype=torch.int64)
    battery = shown(other)  # a name that says which attacks these were, or "custom"
    found.add(battery, own[own >= 0], claims.images[own >= 0])
    found.note(battery, len(attacked & robust))


def of_the_same(run: Path, result: Result) -> Result:
    """The record of a run; raises `UserError` if it is of something else."""
    other = read_result(run)
    for what, theirs, ours in (
        ("dataset", other.dataset.name, result.dataset.name),
        ("split", other.dataset.split, result.dataset.split),
        ("threat model", other.threat, result.threat),
    ):
        if theirs != ours:
            raise UserError(
                f"the run in {run} is of another {what} than the entry: {theirs}, not "
                f"{ours}"
            )
    return other


def _check_run(run: Path, result: Result, data: Dataset) -> None:
    """That its record is one, and of attacks; its adversarials are checked one by one.

    Raises:
        UserError: nothing was attacked.
        VerificationError: the record contradicts itself or the images.
    """
    if not result.attacks:
        raise UserError(f"the run in {run} attacked nothing (battery {result.battery})")
    agree("images of the run", result.dataset.n, len(result.examples.index))
    agree("their shape", tuple(result.dataset.shape), data.shape)
    check_figures(result)


def attack(found: Gathering, further: Further) -> None:
    """By the members of `standard`, on images drawn from those called robust."""
    again, result = further.again, found.result
    drawn = draw(result, again.count, again.seed)
    if not drawn:
        raise UserError("the entry calls no image robust: there is nothing to attack")
    known = further.known
    index = result.examples.index
    rows = [row for row in drawn if known is None or index[row] in known]
    if not rows:
        raise UserError("none of the images that are known to fall was drawn")
    attacked = again.attack(
        found.classifier.to(further.device),
        found.data.subset(rows),
        result.threat,
        seed=again.seed,
        device=further.device,
        on_progress=lambda: None,
    )
    found.classifier.to("cpu")
    fell = torch.tensor(rows)[attacked.rows]
    found.add(STRONGER, fell, attacked.adversarials)
    found.note(STRONGER, len(drawn))
