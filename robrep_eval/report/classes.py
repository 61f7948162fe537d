"""Figures by class: which ones carry the average."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from robrep_eval.report.material import Material
from robrep_eval.report.seen import Seen
from zoo.records import Proportion, Verdict


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class."""

    name: str
    clean: Proportion
    robust: Proportion
    mistaken: str | None
    """What the attacks made of most of its images, with the count."""


def class_rows(material: Material, seen: Seen | None) -> list[ClassRow]:
    """Every class that has images, in order of its number."""
    examples = material.result.examples
    firsts = seen.first() if seen is not None else {}
    rows = []
    for label in sorted(set(examples.label)):
        own = [row for row, found in enumerate(examples.label) if found == label]
        right = sum(examples.clean_prediction[row] == label for row in own)
        robust = sum(examples.verdict[row] is Verdict.ROBUST for row in own)
        mistaken = None
        if seen is not None and seen.said is not None:
            said = Counter(seen.said[firsts[row]] for row in own if row in firsts)
            if said:
                other, count = min(said.items(), key=lambda pair: (-pair[1], pair[0]))
                mistaken = f"{material.class_name(other)} ({count})"
        rows.append(
            ClassRow(
                name=material.class_name(label),
                clean=Proportion.of(right, len(own)),
                robust=Proportion.of(robust, len(own)),
                mistaken=mistaken,
            )
        )
    return rows
