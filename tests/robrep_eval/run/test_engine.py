"""The engine trusts no attack, loses nothing when stopped, and counts once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robrep_eval.attacks.base import Attack, Context
from robrep_eval.attacks.battery import Battery, build
from robrep_eval.run.chunk import BatterySettings, Chunk, ChunkAttack, write_chunk
from robrep_eval.run.engine import Progress, run_battery
from zoo.classifier import Classifier
from zoo.compact import CODED, pack
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.records import Outcome, Verdict
from zoo.threat import ThreatModel

THREAT = ThreatModel(norm="Linf", eps=0.1)
Propose = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Planted:
    """An attack that proposes what it is told to."""

    name: str
    proposal: Propose
    sequence: bool = True
    engine: str = "planted"

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        assert (classifier(x).argmax(dim=1) == y).all(), "only correct examples"
        return self.proposal(x, y)


def _battery(*attacks: Attack) -> Battery:
    return Battery("planted", "planted", attacks)


def _signed_gradient(classifier: Classifier) -> Propose:
    def propose(x: Tensor, y: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(classifier(leaf), y)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return (x + 0.1 * gradient.sign()).clamp(0, 1)

    return propose


def test_planted_wrong_proposals_never_count(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    """Images of other classes fool any classifier, but lie far outside the ball."""
    data = digits_test.subset(slice(30))
    wrong: dict[str, Propose] = {
        "outside-ball": lambda x, y: x.roll(1, dims=0),
        "outside-box": lambda x, y: x - 0.05,
        "nan": lambda x, y: torch.full_like(x, torch.nan),
    }
    for name, proposal in wrong.items():
        found = run_battery(
            plain_classifier,
            data,
            THREAT,
            _battery(Planted(name, proposal)),
            settings=BatterySettings(),
            folder=tmp_path / name,
        )
        outcomes = found.examples.outcomes[name]
        assert Outcome.FOOLED not in outcomes
        assert outcomes.count(Outcome.REFUSED) >= 25
        # An attack that misbehaved is no evidence of robustness either.
        assert Verdict.ROBUST not in {
            v
            for v, o in zip(found.examples.verdict, outcomes, strict=True)
            if o is Outcome.REFUSED
        }
        assert not list(found.parts())


def test_a_sequence_attacks_survivors_and_the_others_all_correct_examples(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    data = digits_test.subset(slice(60))
    strong = _signed_gradient(plain_classifier)
    found = run_battery(
        plain_classifier,
        data,
        THREAT,
        _battery(
            Planted("first", strong),
            Planted("second", lambda x, y: x),
            Planted("apart", strong, sequence=False),
        ),
        settings=BatterySettings(chunk_size=25),
        folder=tmp_path,
    )
    first, second, apart = (
        found.examples.outcomes[n] for n in ("first", "second", "apart")
    )
    assert 0 < first.count(Outcome.FOOLED) < 60
    for a, b, clean, label in zip(
        first,
        second,
        found.examples.clean_prediction,
        found.examples.label,
        strict=True,
    ):
        skipped = clean != label or a is Outcome.FOOLED
        assert (b is Outcome.SKIPPED) == skipped
    assert apart == first
    claims = zip(found.positions.tolist(), found.attack_index.tolist(), strict=True)
    assert {p for p, a in claims if a == 0} == {
        i for i, o in enumerate(first) if o is Outcome.FOOLED
    }


class _StoppedError(Exception):
    pass


def test_a_stopped_run_goes_on_and_ends_as_if_uninterrupted(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    data = digits_test.subset(slice(50))
    calls: list[int] = []
    strong = _signed_gradient(plain_classifier)

    def once_more(limit: int) -> Planted:
        def proposal(x: Tensor, y: Tensor) -> Tensor:
            if len(calls) == limit:
                raise _StoppedError
            calls.append(len(x))
            return strong(x, y)

        return Planted("gradient", proposal)

    def go(attack: Planted, folder: Path) -> Any:
        return run_battery(
            plain_classifier,
            data,
            THREAT,
            _battery(attack),
            settings=BatterySettings(chunk_size=10),
            folder=folder,
        )

    whole = go(Planted("gradient", strong), tmp_path / "whole")
    with pytest.raises(_StoppedError):
        go(once_more(limit=3), tmp_path / "parts")
    resumed = go(once_more(limit=5), tmp_path / "parts")
    assert len(calls) == 5, "finished chunks are not attacked again"
    assert resumed.examples == whole.examples
    parts = list(zip(resumed.parts(), whole.parts(), strict=True))
    assert len(parts) > 1
    for one, other in parts:
        assert torch.equal(one.ends, other.ends)
        assert torch.equal(one.stream, other.stream)


def test_progress_counts_up_and_ends_complete(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    run_battery(
        plain_classifier,
        digits_test.subset(slice(30)),
        THREAT,
        _battery(Planted("gradient", _signed_gradient(plain_classifier))),
        settings=BatterySettings(chunk_size=10),
        folder=tmp_path,
        on_progress=seen.append,
    )
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == 30
    assert all(0 <= p.robust <= p.begun <= 30 for p in seen)


def test_unknown_and_repeated_attacks_are_named() -> None:
    with pytest.raises(UserError, match="unknown attack 'standart'; did you mean"):
        build("standart")
    with pytest.raises(UserError, match="'pgd' is named twice"):
        build("pgd,pgd")
    assert build("none").attacks == ()


def test_a_packed_adversarial_that_is_damaged_is_told_while_it_can_be_made_again(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    data = digits_test.take(6)
    x, packed = (
        data.images(slice(6)),
        pack(data.images(slice(1, 2)), data.images([0]), THREAT),
    )
    assert packed.stream[0] == CODED
    packed.stream[-1] ^= 1  # of the checksum
    part = ChunkAttack(
        outcomes=[Outcome.FOOLED, *[Outcome.HELD] * 5],
        rows=torch.tensor([0]),
        images=packed,
        seconds=0.0,
    )
    path = tmp_path / "00000000-planted.safetensors"
    write_chunk(path, part)
    chunk = Chunk(plain_classifier, data, THREAT, BatterySettings(), tmp_path, 0)
    chunk.y = plain_classifier(x).argmax(dim=1)  # each is right when clean
    with pytest.raises(UserError, match=r"damaged or of another run \(adversarial 0"):
        chunk.run(_battery(Planted("planted", lambda x, _: x)))
    assert path.exists()
