"""A finished run on digits, and records with made-up measurements, for report tests."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from whole import read_whole, write_whole

from robrep_eval.report.material import Material
from robrep_eval.report.svg import Drawing, Text
from zoo.classifier import Classifier, predict
from zoo.datasets.base import Dataset
from zoo.evidence import check_adversarials
from zoo.evidence_file import Claims
from zoo.measurements import Measurements
from zoo.records import (
    AttackRun,
    DatasetRecord,
    Evidence,
    Examples,
    ModelRecord,
    Outcome,
    Proportion,
    Provenance,
    Result,
    Verdict,
)
from zoo.threat import ThreatModel
from zoo.verdicts import clean_accuracy, robust_accuracy

HOSTILE = (
    "</style></title><script>window.owned=1</script><img src=x onerror=owned=1>\"'&"
)


def copy_run(run: Path, to: Path, **changes: Any) -> Path:
    """The run again, with top-level fields of its record replaced."""
    shutil.copytree(run, to)
    write_whole(to, {**read_whole(to), **changes})
    return to


def measured_run(run: Path, to: Path) -> Path:
    """A copy whose record holds every measurement; the added ones are made up."""
    record = read_whole(run)
    n = record["dataset"]["n"]

    def curve(start: int) -> dict[str, Any]:
        left = [max(0, start - at) for at in range(21)]
        return {
            "radius": [0.01 * at for at in range(21)],
            "certified": [Proportion.of(k, n).model_dump() for k in left],
        }

    radius = [0.004 * at if at % 3 else 0.0 for at in range(n)]
    certified = sum(r > record["threat"]["eps"] for r in radius)
    made = {
        "lipschitz": {
            "norm": "Linf",
            "constant": 8.0,
            "method": "made up",
            "certified": Proportion.of(certified, n).model_dump(),
            "curve": curve(n // 2),
            "radius": radius,
        },
        "smoothing": {
            "sigma": 0.25,
            "n0": 100,
            "n": 1000,
            "alpha": 0.001,
            "probe": "made up",
            "smoothed": Proportion.of(n // 2, n).model_dump(),
            "abstained": 3,
            "curve": curve(n // 2),
            "average_radius": 0.123,
            "index": [],
            "prediction": [],
            "radius": [],
        },
        "label_free": {
            "universal_quantile": 0.12,
            "remaining_distance_ratio": 0.8,
            "breakaway_risk": 0.001,
            "nearest_top1": 0.9,
            "nearest_top5": 0.95,
            "overlap_risk": 0.05,
            "margin": 0.6,
            "impersonation": None,
            "n": n,
            "settings": {},
        },
        "corruptions": {
            "source": "made up",
            "official": False,
            "mean": 0.5,
            "cells": [
                {
                    "corruption": name,
                    "severity": severity,
                    "accuracy": Proportion.of(n // severity, n).model_dump(),
                }
                for name in ("fog", "glass_blur")
                for severity in (1, 2, 3, 4, 5)
            ],
        },
    }
    return copy_run(run, to, measurements={**record["measurements"], **made})


def made_material(
    model: Classifier, data: Dataset, x_adv: Tensor, threat: ThreatModel
) -> Material:
    """What a run would hold whose one attack proposed `x_adv`."""
    x, y = data.images(slice(None)), data.labels
    said = predict(model, x).argmax(dim=1)
    fooled = check_adversarials(model, x, x_adv, y, threat).fooled & (said == y)
    examples = Examples(
        index=data.positions.tolist(),
        label=y.tolist(),
        clean_prediction=said.tolist(),
        verdict=[
            Verdict.MISCLASSIFIED
            if not right
            else Verdict.FOOLED
            if lost
            else Verdict.ROBUST
            for right, lost in zip((said == y).tolist(), fooled.tolist(), strict=True)
        ],
        outcomes={
            "made": [Outcome.FOOLED if f else Outcome.HELD for f in fooled.tolist()]
        },
    )
    k = int(fooled.sum())
    result = Result(
        model=ModelRecord(
            reference="made",
            arch="made",
            parameters=1,
            weights_sha256="0" * 64,
            file="classifier.safetensors",
            file_sha256="0" * 64,
        ),
        probe=None,
        dataset=DatasetRecord(
            name=data.name,
            split="test",
            n=len(data),
            sha256=data.fingerprint(),
            classes=model.classes,
            shape=model.shape,
        ),
        threat=threat,
        battery="made",
        engine="made",
        chunk_size=8,
        seed=0,
        clean=clean_accuracy(examples),
        robust=robust_accuracy(examples),
        undecided=0,
        attacks=[
            AttackRun(
                name="made",
                engine="made",
                sequence=False,
                parameters={},
                attempted=len(data),
                fooled=k,
                refused=0,
                undecided=0,
                robust=robust_accuracy(examples),
                seconds=0.0,
            )
        ],
        examples=examples,
        evidence=Evidence(file="e", file_sha256="0" * 64, count=k, tolerance=1e-6),
        seconds={},
        provenance=Provenance(robrep="0", versions={}, device="cpu", threads=1),
    )
    rows = fooled.nonzero().squeeze(1)
    claims = Claims(
        positions=rows, attack_index=torch.zeros_like(rows), images=x_adv[rows]
    )
    return Material(
        result=result,
        measured=Measurements(),
        data=data,
        classifier=model,
        claims=claims,
    )


class Reader(HTMLParser):
    """What a page says: its text without markup, its tables, its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.silent = 0
        self.cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.silent += tag in ("style", "script")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("style", "script")
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.silent:
            return
        self.words.append(data)
        if self.cell:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        """All visible words, single spaces between them."""
        return " ".join(" ".join(self.words).split())

    def row(self, first: str) -> list[str]:
        """The table row whose first cell begins so."""
        return next(row for row in self.rows if row and row[0].startswith(first))


def outside(drawing: Drawing) -> list[str]:
    """Labels that would leave the drawing, at a generous width of letters."""
    found = []
    for mark in drawing.marks:
        if not isinstance(mark, Text) or mark.turned:
            continue
        width = 7.2 * len(mark.text)
        left = mark.x - {"start": 0.0, "middle": width / 2, "end": width}[mark.anchor]
        inside = left >= 0 and left + width <= drawing.width
        if not inside or not 8 <= mark.y <= drawing.height:
            found.append(mark.text)
    return found
