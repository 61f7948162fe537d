"""The engine takes no copy for a classifier whose gradients the copy has not.

Every odd module is attacked through whatever `prepare` chose, and again as itself,
with the same draws: the verdicts must be those. pyautoattack, with draws of its own,
must fool as many.
"""

from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from odd_modules import ODD, Around, Before
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robrep_eval import evaluate
from robrep_eval.attacks.apgd import ApgdAttack
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.battery import Battery
from robrep_eval.attacks.checks import check_classifier
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.fab import FabAttack
from robrep_eval.attacks.prepared import prepare
from robrep_eval.attacks.problem import ITSELF
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.attacks.targets import Targets
from robrep_eval.randomness import seeded
from zoo.classifier import Classifier, predict
from zoo.datasets.base import from_tensors
from zoo.errors import UserError
from zoo.threat import ThreatModel

N = 16
THREAT = ThreatModel(norm="Linf", eps=0.16)
ATTACKS = (
    ApgdAttack(name="apgd-ce", loss="ce", steps=15),
    ApgdAttack(name="apgd-t", loss="dlr-targeted", steps=8, targets=Targets(count=2)),
    FabAttack(name="fab-t", steps=6, targets=Targets(count=2)),
    SquareAttack(name="square", steps=60),
)
FOLDED = {
    "plain",
    "by grad mode",
    "tensor detached",
    "in place",
    "checkpoint",
    "parametrised",
    "attention",
    "data parallel",
    "scripted",
    "spectrum",
    "views",
}
"""A folded copy stands for them: the speed is kept."""
ITSELF_ONLY = {"spying hook", "weight norm", "counting", "locked"}
"""No copy can be made, or none can stand for them."""


class Uncopied(nn.Module):
    """The engine has to attack it as it is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]

    def __deepcopy__(self, memory: object) -> nn.Module:
        raise TypeError("this must not be copied")


def _plain(make: Any) -> nn.Sequential:
    """A network of its own, half robust."""
    trained = copy.deepcopy(make.classifier(0.5))
    return nn.Sequential(*trained.encoder, trained.head)


def _classifier(module: nn.Module) -> Classifier:
    return Classifier(module, nn.Identity(), classes=10, shape=(1, 8, 8))


def _fooled(
    attack: EngineAttack, classifier: Classifier, x: Tensor, y: Tensor
) -> Tensor:
    context = Context(seed=5, ids=torch.arange(len(x)), batch_size=len(x))
    found = attack.propose(classifier, x, y, THREAT, context)
    return predict(classifier, found).argmax(dim=1) != y


def _peer(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    attack: Any = APGDAttack(
        classifier,
        norm=THREAT.norm,
        eps=THREAT.eps,
        n_iter=ATTACKS[0].steps,
        loss="ce",
        seed=5,
        device="cpu",
    )
    with seeded(5), torch.no_grad():
        return predict(classifier, attack.perturb(x, y)).argmax(dim=1) != y


@pytest.mark.parametrize("name", ODD)
def test_the_engine_attacks_what_it_was_given(name: str, make: Any) -> None:
    classifier = _classifier(ODD[name](_plain(make)))
    x, y = make.correct(classifier, N)
    everything = Battery(name="all", engine="robrep", attacks=ATTACKS)
    data = from_tensors(x, y, name="digits", classes=list("0123456789"))
    check_classifier(classifier, data, everything, "cpu")
    kind = prepare(classifier, around=(x, THREAT)).kind
    expected = "a folded copy" if name in FOLDED else "a copy"
    assert kind == (ITSELF if name in ITSELF_ONLY else expected)
    bare = _classifier(Uncopied(classifier))
    assert prepare(bare).kind == ITSELF
    fooled = 0
    for attack in ATTACKS:
        got = _fooled(attack, classifier, x, y)
        want = _fooled(attack, bare, x, y)
        assert int((got != want).sum()) <= len(x) // 8, attack.name
        fooled += int(got.sum())
        if attack.name == "apgd-ce":
            theirs = _peer(classifier, x, y)
            assert abs(int(got.sum()) - int(theirs.sum())) <= len(x) // 8
    assert 0 < fooled < len(ATTACKS) * len(x), "the case must have both"


def test_compiled_modules_are_not_compiled_again(make: Any) -> None:
    net = torch.compile(_plain(make), backend="eager", dynamic=True)
    classifier = _classifier(net)  # type: ignore[arg-type]
    assert prepare(classifier).why == "it is compiled"
    x, y = make.correct(make.classifier(0.5), N)
    few = ApgdAttack(name="apgd-ce", loss="ce", steps=3)
    want = _fooled(few, _classifier(_plain(make)), x, y)
    assert int((_fooled(few, classifier, x, y) != want).sum()) <= len(x) // 8


class Stochastic(nn.Module):
    """Draws in one of several ways."""

    def __init__(self, net: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.05 * self.draw(x))  # type: ignore[no-any-return]


OWN = torch.Generator().manual_seed(0)
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "like the images": torch.randn_like,
    "fixed shape": lambda x: torch.randn(1, 1, 8, 8),
    "numpy": lambda x: x * np.random.standard_normal(),
    "python": lambda x: x * random.gauss(),
    "own generator": lambda x: torch.randn(1, 1, 8, 8, generator=OWN),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_draws_stay_random(name: str, make: Any) -> None:
    """A tracer would fix those that do not depend on the images."""
    classifier = _classifier(Stochastic(_plain(make), DRAWS[name]))
    model = prepare(classifier)
    assert model.kind != "a folded copy"
    x = torch.rand(4, 1, 8, 8)
    passes = [model.logits(x) for _ in range(3)]
    assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[1], passes[2])


def test_what_is_prepared_follows_the_weights_and_is_let_go(make: Any) -> None:
    net = _plain(make)
    classifier = _classifier(net)
    model = prepare(classifier)
    assert prepare(classifier) is model
    with torch.no_grad():
        cast(Tensor, net[6].bias).add_(torch.arange(10.0))
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(prepare(classifier).logits(x), classifier(x))
    net[0].register_full_backward_hook(lambda m, i, o: None)
    assert prepare(classifier).kind == "a copy"
    bare = _classifier(Uncopied(classifier))
    prepare(bare)
    gone = weakref.ref(bare)
    del bare
    gc.collect()
    assert gone() is None


def test_images_that_are_written_into_are_refused(make: Any) -> None:
    classifier = _classifier(Before(lambda x: x.mul_(2), _plain(make)))
    data = from_tensors(
        torch.rand(4, 1, 8, 8),
        torch.zeros(4, dtype=torch.int64),
        name="digits",
        classes=list("0123456789"),
    )
    square = Battery(name="all", engine="robrep", attacks=ATTACKS[3:])
    with pytest.raises(UserError, match="writes into the images"):
        check_classifier(classifier, data, square, "cpu")


def test_gradients_that_cannot_be_taken_are_refused(make: Any) -> None:
    classifier = _classifier(
        Around(lambda net, x: checkpoint(net, x, use_reentrant=True), _plain(make))
    )
    x, y = make.correct(make.classifier(0.5), 4)
    data = from_tensors(x, y, name="digits", classes=list("0123456789"))
    battery = Battery(name="all", engine="robrep", attacks=ATTACKS)
    with pytest.raises(UserError, match="cannot be taken"):
        check_classifier(classifier, data, battery, "cpu")
    assert _fooled(ATTACKS[3], classifier, x, y).dtype == torch.bool  # square can


def test_the_record_says_what_was_attacked(make: Any) -> None:
    said = {}
    for name in ("plain", "straight through", "locked"):
        result = evaluate(
            _classifier(ODD[name](_plain(make))),
            dataset="digits",
            eps=0.1,
            attacks="quick",
            limit=4,
            measure=(),
        )
        said[name] = (result.attacks[0].parameters["network"], result.notes)
    assert said["plain"] == ("a folded copy", [])
    assert said["straight through"] == ("a copy", [])
    network, (note,) = said["locked"]
    assert network == ITSELF
    assert note.startswith("robrep's engine attacked the classifier itself")
    assert "pickle" in note
