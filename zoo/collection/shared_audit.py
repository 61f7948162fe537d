"""Checking what a collection publishes, by one process or several.

Where there are as many items as processes, each item is checked by one of them, who
take them from a queue; fewer are checked one after the other, by all together. Blocks
of images are the same in both, and so are the verdicts. Where entries are attacked
again, items are taken from the queue however few they are: one process attacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from zoo.collection.audit import Again, Audit, Item, audit
from zoo.collection.sources import Source
from zoo.plain_text import plain
from zoo.processes import Company
from zoo.progress import activity


def audit_all(
    source: Source,
    items: Sequence[Item],
    company: Company,
    *,
    data_dir: Path | None,
    device: str = "cpu",
    again: Again | None = None,
) -> Iterator[Audit]:
    """Yields the verdicts in order, in the leading process; the others yield none.

    Args:
        source: The collection.
        items: What to check.
        company: The processes, each of which calls this with the same items.
        data_dir: Where the datasets lie.
        device: Where to run classifiers.
        again: Also attack entries that hold, with the leader's seed.

    Raises:
        AbsentError: a process ended or hangs; says which.
    """
    if again is not None:
        again = replace(again, seed=company.all(again.seed)[0])
    check = partial(audit, source, data_dir=data_dir, device=device, again=again)
    many = company.world > 1 and (again is not None or len(items) >= company.world)
    found = _from_queue if many else _together
    with company.parting():
        yield from found(items, check, company)


def _together(
    items: Sequence[Item], check: partial[Audit], company: Company
) -> Iterator[Audit]:
    for at, item in enumerate(items, start=1):
        with activity(_said(item, at, items) if company.leads else None):
            verdict = check(item, company=company)
        if company.leads:
            yield verdict


def _from_queue(
    items: Sequence[Item], check: partial[Audit], company: Company
) -> Iterator[Audit]:
    heard = 0
    for number in company.queue(len(items)):
        item = items[number]
        with activity(_said(item, number + 1, items) if company.leads else None):
            verdict = check(item, company=company.apart())
        company.tell(number, verdict.as_json())
        while company.leads and heard < len(items) and company.has_told(heard):
            yield Audit.from_json(company.told(heard))
            heard += 1
    for number in range(heard, len(items)) if company.leads else ():
        yield Audit.from_json(company.told(number))


def _said(item: Item, at: int, items: Sequence[Item]) -> str:
    return plain(f"checking {item} ({at} of {len(items)})")
