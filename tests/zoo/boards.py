"""Leaderboards with made-up figures, for tests of how they are shown."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

from zoo.board.leaderboard import Board, Row
from zoo.records import Card, Proportion, Training
from zoo.threat import ThreatModel

HOSTILE = "</script><script>window.owned=1</script><img src=x onerror=owned=1>\"'&|_{}"


def card(name: str, **fields: Any) -> Card:
    """A card; `fields` replace what it usually says."""
    method, labels = fields.pop("method", "tarrl"), fields.pop("labels", False)
    return Card.model_validate(
        {
            "name": name,
            "description": f"the encoder {name}",
            "arch": "resnet18",
            "shape": (3, 32, 32),
            "dim": 512,
            "training": Training(
                method=method,
                dataset="cifar10",
                labels=labels,
                command="robrep-pretrain run recipe",
            ),
            "sha256": "0" * 64,
            "licence": "Apache-2.0",
            **fields,
        }
    )


figure = cache(Proportion.of)


def row(name: str, clean: int, robust: int, n: int = 1000, **fields: Any) -> Row:
    """A row with counts out of n."""
    values: dict[str, Any] = {
        "reference": f"{name}/entry",
        "rank": 1,
        "last": 1,
        "dataset": "cifar10",
        "split": "test",
        "threat": ThreatModel(norm="Linf", eps=8 / 255),
        "battery": "standard",
        "engine": "reference",
        "protocol": "SLF",
        "clean": figure(clean, n),
        "robust": figure(robust, n),
        "undecided": 0,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "parameters": 11_000_000,
        "card": card(name, **fields.pop("card", {})),
    }
    return Row.model_validate({**values, **fields})


def board() -> Board:
    """Seven rows in four groups, one of them hostile."""
    l2 = ThreatModel(norm="L2", eps=0.5)
    return Board(
        source="https://example.org/zoo",
        rows=[
            row(
                "dynacl-cifar10",
                771,
                463,
                rank=1,
                last=2,
                card={"method": "dynacl", "labels": True},
            ),
            row(
                "deacl-cifar10",
                801,
                452,
                rank=1,
                last=3,
                card={"method": "deacl"},
            ),
            row(
                "tarrl-cifar10",
                782,
                449,
                rank=2,
                last=3,
                doubts=[],
                judgement="sound",
            ),
            row(
                "simclr-cifar10",
                907,
                4,
                rank=0,
                last=0,
                card={"method": "simclr"},
                doubts=["Gradients vanish."],
                judgement="broken",
            ),
            row(
                "tarrl-cifar10-l2",
                765,
                605,
                threat=l2,
                protocol="AFF",
                card={"source": "https://example.org/paper"},
            ),
            row(
                "hostile",
                700,
                300,
                dataset="digits",
                card={
                    "description": HOSTILE,
                    "method": HOSTILE,
                    "arch": HOSTILE,
                    "source": "javascript:window.owned=1",
                    "notes": HOSTILE,
                },
            ),
            row("plain-digits", 940, 610, dataset="digits", protocol="ALF"),
        ],
    )


METHODS = (
    "acl",
    "advcl",
    "at",
    "deacl",
    "dynacl",
    "rocl",
    "simclr",
    "tarrl",
    "tarrl-ball",
    "trades",
)
SIZES = {"cifar10": 5, "digits": 10, "fashion-mnist": 10}
"""Encoders by dataset."""


def large() -> Board:
    """25 encoders on three datasets, each under two protocols."""
    rows = []
    for dataset, count in SIZES.items():
        for protocol in ("SLF", "ALF"):
            for at, method in enumerate(METHODS[:count]):
                robust = 700 - 13 * at + (7 if protocol == "ALF" else 0)
                training = {"method": method, "dataset": dataset}
                found = row(
                    f"{method}-{dataset}",
                    900 - 5 * at,
                    robust,
                    reference=f"{method}-{dataset}/{dataset}-{protocol.lower()}",
                    rank=1 + at,
                    last=min(1 + at + at % 3, count),
                    dataset=dataset,
                    protocol=protocol,
                    card={"training": training},
                )
                rows.append(found)
    return Board(source="https://example.org/zoo", rows=rows)


def many(count: int = 10_000, groups: int = 50) -> Board:
    """So many encoders with one entry each, each group under its own threat model."""
    rows = []
    size = count // groups
    for at in range(count):
        group, place = divmod(at, size)
        method, name = METHODS[at % len(METHODS)], f"encoder-{at:05d}"
        robust = 7000 - 4000 * place // size
        card = {
            "description": f"Encoder number {at}: pretrained for 200 epochs, ResNet-18",
            "training": {
                "method": method,
                "dataset": "cifar10",
                "command": f"robrep-pretrain {method} --name {name}",
            },
            "source": f"https://example.org/papers/{at}",
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
        }
        found = row(
            name,
            9000 - 1400 * (place * 7 % size) // size,
            robust,
            n=10_000,
            reference=f"{name}/cifar10-linf8-slf",
            rank=1 + place,
            last=min(place + 4, size),
            threat=ThreatModel(norm="Linf", eps=(1 + group // 2) / 255),
            protocol=("SLF", "ALF")[group % 2],
            card=card,
        )
        rows.append(found)
    return Board(source="https://example.org/zoo", rows=rows)
