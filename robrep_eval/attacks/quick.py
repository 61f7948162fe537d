"""`quick`: few passes, spent where they may matter, for choosing models.

Two short attacks on the margin of probabilities, then the nearest classes; after the
first of them only for examples that it brought close to the boundary. All start in
stripes, which find images that AutoAttack's gradients miss (docs/concepts/engine.md).
"""

from __future__ import annotations

from typing import Literal

from robrep_eval.attacks.apgd import ApgdAttack
from robrep_eval.attacks.registry import Choice
from robrep_eval.attacks.targets import Targets
from zoo.errors import UserError


def chosen(choice: Choice) -> list[ApgdAttack]:
    """Both attacks.

    Raises:
        UserError: on the reference's engine, which has nothing like it.
    """
    if choice.engine == "reference":
        raise UserError("the reference has no battery 'quick'; use --engine robrep")
    sparse = choice.norm == "L1"
    start: Literal["random", "stripes"] = "random" if sparse else "stripes"
    margin = ApgdAttack(
        name="quick-margin",
        loss="probability-margin",
        steps=50,
        restarts=2,
        start=start,
        larger_radii=sparse,
        randomness=choice.randomness,
    )
    nearest = ApgdAttack(
        name="quick-t",
        loss="dlr-targeted",
        steps=60,
        targets=Targets(count=6, ranking="malt", near=0.3),
        start=start,
        larger_radii=sparse,
        randomness=choice.randomness,
    )
    return [margin, nearest]
