"""What the engine's attacks do at the edges, and what they promise in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robrep_eval.attacks.apgd import ApgdAttack, checkpoints
from robrep_eval.attacks.autoattack import members
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.noise import PerExample
from robrep_eval.attacks.pool import Pool, State
from robrep_eval.attacks.prepared import prepare
from robrep_eval.attacks.problem import Problem
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.attacks.square_linf import SquareLinf
from robrep_eval.attacks.targets import Targets
from zoo.ball import lengths
from zoo.classifier import Classifier
from zoo.evidence import check_adversarials
from zoo.records import Outcome
from zoo.threat import Norm, ThreatModel

LINF = ThreatModel(norm="Linf", eps=0.15)


def _context(n: int, notes: list[str] | None = None) -> Context:
    notes = [] if notes is None else notes
    return Context(
        seed=0,
        ids=torch.arange(n),
        batch_size=16,
        note=notes.append,
    )


def _linear(weight: Tensor, bias: Tensor) -> Classifier:
    head = nn.Linear(weight.shape[1], len(weight))
    head.weight.data, head.bias.data = weight, bias
    return Classifier(nn.Flatten(), head, classes=len(weight), shape=(1, 6, 6))


def _halfspaces(classes: int) -> tuple[Classifier, Tensor, Tensor]:
    """A linear classifier with images away from the bounds of the box."""
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(classes, 36, generator=g)
    classifier = _linear(weight, torch.zeros(classes))
    x = 0.3 + 0.4 * torch.rand(60, 1, 6, 6, generator=g)
    with torch.no_grad():
        return classifier, x, classifier(x).argmax(dim=1)


@pytest.mark.parametrize(("norm", "dual"), [("Linf", 1), ("L2", 2)])
@pytest.mark.parametrize("member", ["apgd-t", "fab-t"])
def test_finds_exactly_what_a_linear_classifier_allows(
    norm: Norm, dual: int, member: str
) -> None:
    """There the distance to class j is (z_y - z_j) / ||w_y - w_j||_dual, exactly."""
    classifier, x, y = _halfspaces(6)
    with torch.no_grad():
        logits = classifier(x)
        weight = classifier.head.get_parameter("weight")
        gap = logits.gather(1, y.unsqueeze(1)) - logits
        far = torch.linalg.vector_norm(weight[y].unsqueeze(1) - weight, dual, dim=2)
        distance = (gap / far).masked_fill(gap == 0, torch.inf).amin(dim=1)
    threat = ThreatModel(norm=norm, eps=float(distance.median()))
    (attack,) = members(member, norm, "per-example")
    found = attack.propose(classifier, x, y, threat, _context(len(x)))
    with torch.no_grad():
        fooled = classifier(found).argmax(dim=1) != y
    clear = (distance / threat.eps - 1).abs() > 0.02
    assert fooled[clear].tolist() == (distance < threat.eps)[clear].tolist()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_proposals_pass_the_evidence_check(norm: Norm, make: Any) -> None:
    classifier = make.classifier(0.0)
    x, y = make.correct(classifier, 20)
    threat = ThreatModel(norm=norm, eps={"Linf": 0.2, "L2": 1.2, "L1": 5.0}[norm])
    for attack in members("standard", norm, "per-example"):
        short = replace(attack, steps=60 if attack.name == "square" else 12)
        found = short.propose(classifier, x, y, threat, _context(len(x)))
        check = check_adversarials(classifier, x, found, y, threat)
        assert Outcome.REFUSED not in check.outcome
        moved = lengths(found - x, threat.norm) > 0
        assert check.fooled.tolist() == moved.tolist(), "held rows are the clean images"
        assert bool(check.fooled.any()), attack.name


def test_early_falls_cost_few_passes(make: Any) -> None:
    classifier = make.classifier(0.0)
    x, y = make.correct(classifier, 60)
    model = prepare(classifier)
    before = model.forward_rows
    attack = ApgdAttack(name="apgd-ce", loss="ce")
    threat = ThreatModel(norm="Linf", eps=0.4)
    found = attack.propose(classifier, x, y, threat, _context(len(x)))
    with torch.no_grad():
        assert bool((classifier(found).argmax(dim=1) != y).all())
    assert model.forward_rows - before < 10 * len(x)  # the reference: 101 each


def test_further_targets_only_near_the_boundary(make: Any) -> None:
    """Of what all targets find, nothing is lost but what the first left far away."""
    classifier = make.classifier(1.0)
    x, y = make.correct(classifier, 100)
    threat = ThreatModel(norm="Linf", eps=0.14)
    model = prepare(classifier)
    fooled, passes = {}, {}
    for near in (0.0, 0.5, 1.0):
        attack = ApgdAttack(
            name="t",
            loss="dlr-targeted",
            steps=8,
            targets=Targets(count=5, near=near),
        )
        before = model.backward_rows
        found = attack.propose(classifier, x, y, threat, _context(len(x)))
        passes[near] = model.backward_rows - before
        fooled[near] = (found != x).flatten(1).any(dim=1)
    assert passes[0.0] < passes[0.5] < passes[1.0]
    assert not bool((fooled[0.0] & ~fooled[0.5] | fooled[0.5] & ~fooled[1.0]).any())
    assert int(fooled[0.0].sum()) < int(fooled[0.5].sum()), "the case needs targets"


class _Varies(nn.Module):
    """Logits (n, 2): class 1 as soon as neighbours along `dim` differ."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        change = x.diff(dim=self.dim).abs().flatten(1).mean(dim=1)
        return torch.stack([torch.full_like(change, 1e-3), change], dim=1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("dim", "constant"), [(2, 3), (3, 2)])
def test_stripes_lie_in_rows_then_in_columns(
    norm: Norm, dim: int, constant: int
) -> None:
    """Flat images have no gradient there, so only the start itself can fool."""
    classifier = Classifier(_Varies(dim), nn.Identity(), classes=2, shape=(3, 6, 6))
    attack = ApgdAttack(name="s", loss="ce", steps=1, restarts=2, start="stripes")
    x, y = torch.full((8, 3, 6, 6), 0.5), torch.zeros(8, dtype=torch.int64)
    threat = ThreatModel(norm=norm, eps=0.1)
    offset = attack.propose(classifier, x, y, threat, _context(8)) - x
    assert bool((classifier(x + offset).argmax(dim=1) == 1).all())
    assert float(offset.diff(dim=constant).abs().max()) == 0
    torch.testing.assert_close(lengths(offset, norm), torch.full((8,), 0.1))
    torch.testing.assert_close(offset.abs(), offset.abs().amax().expand_as(offset))


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_clamp_targets_and_say_so(classes: int) -> None:
    classifier, x, y = _halfspaces(classes)
    threat = ThreatModel(norm="Linf", eps=0.5)
    for member in members("standard", "Linf", "per-example"):
        if member.name == "square":
            continue
        notes: list[str] = []
        found = member.propose(classifier, x[:8], y[:8], threat, _context(8, notes))
        with torch.no_grad():
            assert bool((classifier(found).argmax(dim=1) != y[:8]).any())
        if member.targets.count:
            assert f"{classes - 1} target classes instead of 9" in notes[0]


def test_zero_gradients_are_noted(make: Any) -> None:
    class Saturated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1).mean(1, keepdim=True) * 0).expand(-1, 10) + torch.eye(
                10
            )[0]

    classifier = Classifier(Saturated(), nn.Identity(), classes=10, shape=(1, 8, 8))
    notes: list[str] = []
    attack = ApgdAttack(name="apgd-ce", loss="ce", steps=3)
    y = torch.zeros(4, dtype=torch.int64)
    attack.propose(classifier, torch.rand(4, 1, 8, 8), y, LINF, _context(4, notes))
    assert notes == [
        "apgd-ce: the gradient was exactly zero at 4 starts; a sign of masked gradients"
    ]


class Breaking(nn.Module):
    """Linear, brighter is worse; NaN (in logits or gradients) for bright images."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        weight = torch.stack([torch.full((64,), 0.01), torch.zeros(64)])
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor([0.0, 9.0]))

    def forward(self, x: Tensor) -> Tensor:
        logits = x.flatten(1) @ self.weight.T + self.bias
        bright = x.flatten(1).mean(dim=1, keepdim=True) > 0.5
        if self.where == "logits":
            return logits.masked_fill(bright, float("nan"))
        # sqrt(0) has an infinite slope, and 0 times it is NaN.
        return logits + (x.flatten(1).sum(dim=1, keepdim=True) * 0).sqrt() * bright


@pytest.mark.parametrize("where", ["logits", "gradients"])
def test_examples_that_break_are_undecided(where: str) -> None:
    classifier = Classifier(Breaking(where), nn.Identity(), classes=2, shape=(1, 8, 8))
    x = torch.cat([torch.full((2, 1, 8, 8), 0.2), torch.full((2, 1, 8, 8), 0.499)])
    y = torch.ones(4, dtype=torch.int64)
    broken: list[Tensor] = []
    context = Context(
        seed=0, ids=torch.arange(4), batch_size=4, undecided=broken.append
    )
    attack = ApgdAttack(name="apgd-ce", loss="ce", steps=10)
    small = ThreatModel(norm="Linf", eps=0.01)
    attack.propose(classifier, x, y, small, context)
    rows = set(torch.cat(broken).tolist())
    assert rows
    assert where == "gradients" or rows <= {2, 3}


def test_ties_of_half_precision_do_not_count(make: Any) -> None:
    class Coarse(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).to(torch.bfloat16)  # type: ignore[no-any-return]

    inner = make.classifier(0.5)
    classifier = Classifier(Coarse(inner), nn.Identity(), classes=10, shape=(1, 8, 8))
    x, y = make.correct(inner, 12)
    attack = SquareAttack(name="square", steps=80)
    found = attack.propose(classifier, x, y, LINF, _context(12))
    moved = (found != x).flatten(1).any(dim=1)
    with torch.no_grad():
        wrong = classifier(found).argmax(dim=1) != y
    assert moved.tolist() == wrong.tolist()


def test_passed_over_queries_are_exactly_those_that_change_nothing(make: Any) -> None:
    classifier = make.classifier(1.0)
    x, y = make.correct(classifier, 5)
    model = prepare(classifier)
    problem = Problem(model, x, y, torch.arange(5), LINF, y)
    program = SquareLinf(
        problem, PerExample(0, "square"), run=0, queries=400, guard=model.guard
    )
    state = program.begin(torch.arange(5))
    state["query"][:] = torch.arange(5) * 20
    before = state["query"].clone()
    program.queue.next(state)  # moves every row to its next query that matters
    for row in range(5):
        for query in range(int(before[row]), int(state["query"][row]) + 1):
            one = program.begin(torch.tensor([row]))
            block = program.queue._block(torch.tensor([row]), torch.tensor([query]))
            tried = program._candidate(
                one, block["windows"][:, 0], block["signs"][:, 0]
            )
            changed = not torch.equal(tried, one["image"])
            assert changed == (query == int(state["query"][row]))


def test_pool_gives_every_task_its_own_result_at_full_batches() -> None:
    class Countdown:
        """Task t takes t % 7 + 1 steps."""

        steps, clock, lockstep = 7, "iteration", False

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def begin(self, tasks: Tensor) -> State:
            zeros = torch.zeros(len(tasks), dtype=torch.int64)
            return {
                "task": tasks,
                "iteration": zeros,
                "found": tasks % 2 == 0,
                "image": tasks.float().view(-1, 1, 1, 1),
            }

        def step(self, state: State) -> Tensor:
            self.sizes.append(len(state["task"]))
            state["iteration"] = state["iteration"] + 1
            return state["iteration"] > state["task"] % 7

    program, tasks = Countdown(), torch.arange(100).flip(0)
    pool = Pool(program, tasks, torch.zeros(100, 1, 1, 1), 10)
    pool.run()
    at, images = pool.results()
    assert sorted(tasks[at].tolist()) == list(range(0, 100, 2))
    assert images.flatten().tolist() == tasks[at].tolist()
    assert max(program.sizes) == 10
    assert sum(program.sizes) == sum(t % 7 + 1 for t in range(100))
    assert pool.share() == 1


def test_checkpoints_of_one_hundred_iterations() -> None:
    """Croce & Hein 2020, section 3.2: p_0 = 0, p_1 = 0.22, steps shrinking by 0.03."""
    ends, windows = checkpoints(100)
    assert (ends.nonzero().flatten() + 1).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert windows[ends].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]
