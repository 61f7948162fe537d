"""`fast`: for claims at a small part of AutoAttack's cost.

First short attacks of several kinds on every image, then longer ones on those that came
near a boundary: the nearer, the more. Targets are the classes that the rounds before
brought nearest. At the end FAB on the nearest, and some queries of Square on all that
is left, as a guard against gradients that mislead.
"""

from __future__ import annotations

from dataclasses import replace

from robrep_eval.attacks.apgd import ApgdAttack
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.fab import FabAttack
from robrep_eval.attacks.registry import Choice
from robrep_eval.attacks.rounds import Round, RoundsAttack
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.attacks.starts import Start
from robrep_eval.attacks.targets import UNTARGETED, Targets
from zoo.errors import UserError

QUERIES = 300
MARGIN, ENTROPY, TARGETED = "probability-margin", "ce", "dlr-targeted"


def chosen(choice: Choice) -> list[RoundsAttack | SquareAttack]:
    """The rounds, and Square.

    Raises:
        UserError: on the reference's engine, which has nothing like it.
    """
    if choice.engine == "reference":
        raise UserError("the reference has no battery 'fast'; use --engine robrep")
    rounds = tuple(_in_force(each, choice) for each in ROUNDS)
    square = SquareAttack(
        name="fast-square", steps=QUERIES, randomness=choice.randomness
    )
    rounded = RoundsAttack(
        name="fast-rounds", rounds=rounds, randomness=choice.randomness
    )
    return [rounded, square]


def _apgd(
    name: str, loss: str, start: Start, steps: int, restarts: int = 1, targets: int = 0
) -> ApgdAttack:
    aims = Targets(count=targets, ranking="met") if targets else UNTARGETED
    return ApgdAttack(
        name=name, loss=loss, start=start, steps=steps, restarts=restarts, targets=aims
    )


def _in_force(each: Round, choice: Choice) -> Round:
    """With the randomness asked for; in L1 from sparse starts at larger radii."""
    attack: EngineAttack = replace(each.attack, randomness=choice.randomness)
    if choice.norm == "L1" and isinstance(attack, ApgdAttack):
        attack = replace(attack, start="random", larger_radii=True)
    return replace(each, attack=attack)


ROUNDS = (
    Round(attack=_apgd("margin-clean", MARGIN, "clean", 20)),
    Round(attack=_apgd("ce-uniform", ENTROPY, "random", 20)),
    Round(attack=_apgd("margin-stripes", MARGIN, "stripes", 25, 2), near=0.8),
    Round(attack=_apgd("margin-diversified", MARGIN, "diversified", 25), near=0.5),
    Round(attack=_apgd("targets-3", TARGETED, "stripes", 40, targets=3), near=0.35),
    Round(attack=_apgd("targets-9", TARGETED, "random", 50, targets=9), near=0.15),
    Round(attack=_apgd("margin-long", MARGIN, "diversified", 100, 4), near=0.08),
    Round(
        attack=FabAttack(
            name="fab-t", steps=60, targets=Targets(count=9, ranking="met")
        ),
        near=0.08,
    ),
)
"""In order. Settings were chosen on other classifiers and images than any claim's
(docs/concepts/engine.md)."""
