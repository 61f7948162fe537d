"""`robrep-zoo verify`: whether what a collection publishes holds."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from zoo.commands.again import ATTACK, ATTACK_SEED, DEVICE, reattack
from zoo.commands.options import (
    AS_JSON,
    DATA_DIR,
    SOURCE,
    complete_name,
    naming,
    show_table,
)
from zoo.plain_text import plain

if TYPE_CHECKING:
    from zoo.collection.audit import Audit


@click.command()
@click.argument("name", required=False, shell_complete=complete_name)
@click.option("--all", "everything", is_flag=True, help="Every encoder and entry.")
@ATTACK
@ATTACK_SEED
@click.option("--strict", is_flag=True, help="An entry fails if one image falls.")
@DEVICE
@DATA_DIR
@SOURCE
@AS_JSON
def verify(
    name: str | None,
    everything: bool,
    attack: int | None,
    seed: int | None,
    strict: bool,
    device: str,
    data_dir: Path | None,
    source: str | None,
    as_json: bool,
) -> None:
    """Recompute the claims of NAME from what is published, by forward passes alone.

    NAME is an encoder, or ENCODER/ENTRY. With --all, entries whose images are not
    here are named and left out; the rest must hold. That attacks were run on the images
    that held, forward passes cannot tell: --attack tries some of these again. Several
    processes share the work: torchrun --nproc-per-node 2 -m zoo verify NAME.
    """
    from zoo.collection.audit import plan, unreadable
    from zoo.collection.opening import open_source
    from zoo.collection.shared_audit import audit_all
    from zoo.device import check_device
    from zoo.errors import UserError
    from zoo.processes import Company

    if (name is None) != everything:
        raise UserError("give a NAME, or --all")
    check_device(device)
    again = reattack(attack, seed, strict=strict)
    collection = open_source(source)
    with naming(name):
        items = plan(collection, name)
    broken = unreadable(collection) if everything else []
    if not items and not broken:
        raise UserError(f"there is nothing to verify in {collection.uri}")
    company, verdicts = Company.from_environment("verify"), []
    found = audit_all(
        collection, items, company, data_dir=data_dir, device=device, again=again
    )
    for verdict in chain(broken if company.leads else (), found):
        verdicts.append(verdict)
        if not as_json:
            show_table(plain(str(verdict)))
    if not company.leads:
        return
    if as_json:
        click.echo(json.dumps([verdict.as_json() for verdict in verdicts], indent=2))
    elif told := _bases(verdicts):
        show_table(plain(told))
    _conclude(verdicts, strict=not everything)


def _bases(verdicts: list[Audit]) -> str:
    """What the claims of entries rest on; nothing if no entry was checked."""
    from zoo.claims import EXPLAINED

    entry = next((verdict for verdict in verdicts if verdict.stated), None)
    if entry is None:
        return ""
    lines = [f"{basis}: {text}" for basis, text in EXPLAINED.items()]
    lines[-1] += f": {entry.stated}"  # the last class is what is stated
    return "\n".join(["what entries claim is", *lines, f"not proven: {entry.unproven}"])


def _conclude(verdicts: list[Audit], *, strict: bool) -> None:
    """The last line, or the error; `strict`: what could not be checked is one too."""
    from zoo.errors import UserError, VerificationError

    unchecked = [verdict.item for verdict in verdicts if verdict.unchecked]
    held = sum(verdict.holds for verdict in verdicts)
    failed = [v.item for v in verdicts if not v.holds and not v.unchecked]
    if failed:
        names = plain(", ".join(failed))
        raise VerificationError(
            f"{len(failed)} of {len(verdicts)} do not hold: {names}"
        )
    left = f"not checked, for their images are not here: {plain(', '.join(unchecked))}"
    if unchecked and strict:
        raise UserError(left)
    seconds = sum(verdict.seconds for verdict in verdicts)
    click.echo(f"{held} of {len(verdicts)} hold ({seconds:.1f} s)", err=True)
    if unchecked:
        click.echo(f"{len(unchecked)} {left}", err=True)
