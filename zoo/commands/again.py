"""Options of the commands that attack published entries again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from zoo.commands.numbers import Whole

if TYPE_CHECKING:
    from zoo.collection.audit import Again

ATTACK = click.option(
    "--attack",
    type=Whole(min=1),
    metavar="N",
    help="Attack N images said to be robust, of each entry.",
)
ATTACK_SEED = click.option(
    "--seed",
    type=Whole(0, 2**31 - 1),
    help="Which images, and the attack's draws; by default fresh, and printed.",
)
DEVICE = click.option("--device", default="cpu", show_default=True)


def reattack(
    count: int | None, seed: int | None, *, strict: bool = False
) -> Again | None:
    """The re-attack that was asked for.

    Raises:
        UserError: options of one that was not.
    """
    from zoo.collection.audit import Again
    from zoo.collection.reattack import find_attack, fresh_seed
    from zoo.errors import UserError

    if count is None:
        given = ["--seed"] * (seed is not None) + ["--strict"] * strict
        if given:
            raise UserError(f"{' and '.join(given)}: only beside --attack N")
        return None
    return Again(
        count=count,
        seed=fresh_seed() if seed is None else seed,
        attack=find_attack(),
        strict=strict,
    )
