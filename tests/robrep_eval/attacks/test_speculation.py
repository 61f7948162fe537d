"""Several squares of an image in one pass come to what they come to one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.prepared import prepare
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.attacks.square_linf import until_first
from zoo.classifier import Classifier
from zoo.threat import ThreatModel

N, QUERIES = 5, 400


class Wavy(nn.Module):
    """Some squares lower the margin, most do not; in float64, as batches round."""

    wide = False
    """Whether its answers are float64 too."""

    def __init__(self, lead: float, size: int, infinite: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = (size, 30)
        self.directions = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.mix = torch.randn(30, 3, generator=generator, dtype=torch.float64)
        self.lead, self.infinite, self.passes = lead, infinite, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        waves = (3 * x.flatten(1).double() @ self.directions).sin()
        s = waves @ self.mix + torch.tensor([self.lead, 0.0, 0.0], dtype=torch.float64)
        if self.infinite:
            s = torch.where(s[:, :1] < self.lead - 1, torch.nan, s)
        return s if self.wide else s.float()


def run(
    module: Wavy, shape: tuple[int, int, int], batch: int, speculation: bool
) -> tuple[Tensor, list[int], int]:
    """Final images, rows undecided, and passes."""
    classifier = Classifier(module, nn.Identity(), classes=3, shape=shape)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(N, *shape, generator=generator)
    y = torch.zeros(N, dtype=torch.int64)
    prepare(classifier)
    before, broken = module.passes, []
    context = Context(
        seed=4,
        ids=torch.arange(10, 10 + N),
        batch_size=batch,
        undecided=lambda rows: broken.extend(rows.tolist()),
    )
    attack = SquareAttack(name="square", steps=QUERIES, speculation=speculation)
    threat = ThreatModel(norm="Linf", eps=0.1)
    images = attack.propose(classifier, x, y, threat, context)
    return images, sorted(broken), module.passes - before


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)], ids=["known", "unknown"])
@pytest.mark.parametrize("lead", [0.5, 4.0, 60.0], ids=["falls", "some", "none"])
def test_same_images_in_fewer_passes(shape: tuple[int, int, int], lead: float) -> None:
    size = shape[0] * shape[1] * shape[2]
    one, _, passes = run(Wavy(lead, size), shape, 64, False)
    several, _, fewer = run(Wavy(lead, size), shape, 64, True)
    torch.testing.assert_close(several, one, rtol=0, atol=0)
    assert fewer <= passes
    if lead == 60.0:
        assert fewer < passes / 4


def test_images_that_break_the_classifier_break_it_at_the_same_square() -> None:
    shape = (1, 8, 8)
    one, broken, _ = run(Wavy(3.0, 64, infinite=True), shape, 64, False)
    several, same, _ = run(Wavy(3.0, 64, infinite=True), shape, 64, True)
    assert broken
    assert same == broken
    torch.testing.assert_close(several, one, rtol=0, atol=0)


def test_logits_of_float64_are_attacked_too() -> None:
    for speculation in (False, True):
        module = Wavy(4.0, 64)
        module.wide = True
        images = run(module, (1, 8, 8), 64, speculation)[0]
        with torch.no_grad():
            assert bool((module(images).argmax(dim=1) != 0).any())


def test_what_is_tried_at_once_depends_on_who_is_left_and_changes_nothing() -> None:
    wide = run(Wavy(4.0, 64), (1, 8, 8), 64, True)[0]
    narrow = run(Wavy(4.0, 64), (1, 8, 8), 12, True)[0]
    torch.testing.assert_close(narrow, wide, rtol=0, atol=0)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30))
def test_the_first_event_ends_a_turn(trials: list[tuple[int, bool]]) -> None:
    ordered = sorted(trials, key=lambda each: each[0])
    owner = torch.tensor([o for o, _ in ordered])
    met, last = until_first(owner, torch.tensor([e for _, e in ordered]), 4)
    over: set[int] = set()
    want, ends = [], [-1] * 4
    for at, (who, event) in enumerate(ordered):
        want.append(who not in over)
        if who not in over:
            ends[who] = at
        if event:
            over.add(who)
    assert met.tolist() == want
    assert last.tolist() == ends


def test_speculation_is_no_part_of_the_record() -> None:
    attack = SquareAttack(name="square")
    assert replace(attack, speculation=False).parameters == attack.parameters
