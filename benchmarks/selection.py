"""What choosing an encoder without any label costs, over the encoders of a suite.

    python -m benchmarks.selection --suite fashion-mnist --data-dir FOLDER

Encoders with entries on every task of the suite are measured without labels, on images
that neither trained them nor made a figure of its tasks on the plain images (those that
follow in the test split; derived tasks of a sorted folder draw an order of their own).
Each measure then chooses one encoder; its price is the suite's mean robust accuracy of
the best encoder less that of the chosen one, in points. The last row is a choice by
lot. Chosen among all encoders, and among those that were trained without labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from benchmarks.claims import suites
from robrep_eval.attacks.displacement import FeatureAttackSettings
from robrep_eval.measures.label_free import measure_label_free
from robrep_eval.probes.linear import features
from zoo.classifier import Classifier
from zoo.collection import store
from zoo.datasets import load
from zoo.encoder import Encoder
from zoo.feature_metric import METRICS, PLAIN
from zoo.suites.suite import Suite, load_suite
from zoo.tables import markdown_table
from zoo.threat import ThreatModel, parse_eps
from zoo.whitening import whitened

MEASURES = {
    "remaining_distance_ratio": 1,
    "margin": 1,
    "universal_quantile": -1,
    "breakaway_risk": -1,
    "overlap_risk": -1,
}
"""1 where more is better, -1 where less is."""
STEPS = 10
"""Of each attack in feature space."""
SUITES = (suites.FASHION, suites.PHOTOS)
"""Those with claims, and with tasks on the pretraining's own images."""
LOT = "by lot"
"""The expected price of taking any encoder."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An encoder, what it is worth, and what can be known of it without labels."""

    name: str
    labels: bool
    """Whether labels trained it."""
    mean: float
    """Robust accuracy over the suite, in points."""
    measures: Mapping[str, float]
    """Signed so that more is better."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one measure chose."""

    measure: str
    rank: float
    """Spearman's correlation of the measure with the mean; NaN if it is constant."""
    chosen: str
    points: float
    """What is lost beside the best."""


def prices(candidates: Sequence[Candidate]) -> list[Price]:
    """One for each measure, and that of a choice by lot.

    Of encoders that a measure cannot tell apart the choice is by lot too: its price is
    their mean one.
    """
    means = np.array([one.mean for one in candidates])
    found = []
    for name in candidates[0].measures:
        values = np.array([one.measures[name] for one in candidates])
        first = values == values.max()
        constant = first.all() or (means == means[0]).all()
        rank = float("nan") if constant else float(spearmanr(values, means).statistic)
        found.append(
            Price(
                measure=name,
                rank=rank,
                chosen=_named([candidates[int(i)].name for i in np.flatnonzero(first)]),
                points=float(means.max() - means[first].mean()),
            )
        )
    lost = float(means.max() - means.mean())
    return [*found, Price(measure=LOT, rank=float("nan"), chosen="", points=lost)]


def _named(names: Sequence[str]) -> str:
    """One or two by name, more by their number."""
    return ", ".join(names) if len(names) < 3 else f"any of {len(names)}"


def mean_robust(name: str, suite: Suite) -> float:
    """Of a published encoder over a suite, SLF, in points."""
    found = suites.results(name, suite, "slf")
    return 100 * float(np.mean([one.robust.value for one in found.values()]))


def measured(
    encoder: Encoder, x: torch.Tensor, threat: ThreatModel
) -> dict[str, float]:
    """All measures in both units, signed so that more is better."""
    settings = FeatureAttackSettings(steps=STEPS)
    found = {}
    for metric in METRICS:
        network: nn.Module = encoder
        if metric != PLAIN:
            # A head is asked for by the whitening alone; no measure looks at it.
            head = nn.Linear(encoder.dim, 2)
            plain = Classifier(encoder, head, classes=2, shape=encoder.spec.shape)
            network = whitened(plain, features(encoder, x)).encoder
        values = measure_label_free(network, x, threat, settings=settings)
        for name, sign in MEASURES.items():
            found[f"{name}, {metric}"] = sign * float(getattr(values, name))
    return found


def encoders(suite: str) -> list[str]:
    """Those that the claims over a suite are made of."""
    claims = [claim for claim in suites.CLAIMS if claim.suite == suite]
    return list(dict.fromkeys(name for claim in claims for name in claim.a + claim.b))


def candidates(suite: Suite, count: int, data_dir: Path | None) -> list[Candidate]:
    """All of them, measured on `count` images."""
    data = load(suite.pretraining, "test", data_dir=data_dir)
    x = data.images(slice(suite.images, suite.images + count))
    own = next(task for task in suite.tasks if task.dataset == suite.pretraining)
    threat = ThreatModel(norm=suite.norm, eps=parse_eps(own.eps))
    found = []
    for name in encoders(suite.name):
        encoder = store.load_encoder_by_name(name)
        found.append(
            Candidate(
                name=name,
                labels=store.card(name).training.labels,
                mean=mean_robust(name, suite),
                measures=measured(encoder.eval(), x, threat),
            )
        )
        print(f"measured {name}: suite {found[-1].mean:.1f}%", flush=True)
    return found


def table(found: Sequence[Candidate]) -> str:
    """Prices among `found`."""
    rows = [
        [
            one.measure.replace("_", " "),
            "" if np.isnan(one.rank) else f"{one.rank:.2f}",
            one.chosen,
            f"{one.points:.1f}",
        ]
        for one in prices(found)
    ]
    headings = ("measure", "rank correlation", "chooses", "price, points")
    return markdown_table(headings, rows, numbers={headings[1], headings[3]})


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--suite", default=SUITES[0], choices=SUITES)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    found = candidates(load_suite(given.suite), given.images, given.data_dir)
    print(f"\nAmong all {len(found)}:\n\n{table(found)}")
    without = [one for one in found if not one.labels]
    print(f"Among the {len(without)} without labels:\n\n{table(without)}")


if __name__ == "__main__":
    main()
