"""Items of a collection taken from a queue: each verdict once, in order, one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]

from zoo.collection import shared_audit
from zoo.collection.audit import Again, Audit, Item
from zoo.collection.reattack import Attack, Sampled
from zoo.collection.shared_audit import audit_all
from zoo.collection.sources import Source
from zoo.processes import Company

Check = Callable[[str], None]
NOWHERE = cast("Source", None)


def companies(count: int) -> list[Company]:
    """Processes that meet in one store."""
    store = HashStore()
    return [Company(rank, count, store, name=rank) for rank in range(count)]


def again(seed: int) -> Again:
    return Again(count=2, seed=seed, attack=cast("Attack", None))


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Check], None]:
    """Has items audited by a function of their name; what is found tells the seed."""

    def use(check: Check) -> None:
        def audit(_: object, item: Item, *, again: Again, **__: Any) -> Audit:
            check(str(item))
            found = Sampled(
                seed=again.seed,
                attacked=2,
                robust=9,
                fallen={7: "square"},
                low=1,
                high=8,
                images=10,
                strong=True,
            )
            return Audit(item=str(item), holds=True, reattacked=found, seconds=1.0)

        monkeypatch.setattr(shared_audit, "audit", audit)

    return use


def run(company: Company, items: str, seed: int = 0) -> Iterator[Audit]:
    return audit_all(
        NOWHERE,
        cast("list[Item]", list(items)),
        company,
        data_dir=None,
        again=again(seed),
    )


@pytest.mark.parametrize("items", ["", "a", "abcdefg"])
def test_all_have_the_leaders_seed_and_each_verdict_comes_once(
    verdicts: Callable[[Check], None], items: str
) -> None:
    seen: list[str] = []
    verdicts(seen.append)
    three = companies(3)
    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(
            lambda company: list(run(company, items, 40 + company.rank)), three
        )
    assert [found.item for found in first] == list(items)
    assert others == [[], []]
    assert sorted(seen) == list(items)
    for found in first:
        assert found.reattacked is not None
        assert (found.reattacked.seed, found.reattacked.fallen) == (40, {7: "square"})


def test_verdicts_are_yielded_in_order_while_others_are_checked(
    verdicts: Callable[[Check], None],
) -> None:
    leader, other = companies(2)
    events: list[str] = []
    told = Audit(item="a", holds=True, seconds=0.0).as_json()

    def check(name: str) -> None:
        events.append(f"check {name}")
        if name == "c":
            other.tell(0, told)  # "a", which the other one took first

    verdicts(check)
    assert next(other.queue(4)) == 0
    assert not leader.has_told(0)
    assert not leader.has_told(1)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(other.all, 1)  # seeds
        for found in run(leader, "abcd"):
            events.append(f"verdict {found.item}")
    assert events == [
        "check b",
        "check c",
        "verdict a",
        "verdict b",
        "verdict c",
        "check d",
        "verdict d",
    ]
