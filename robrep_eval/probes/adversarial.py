"""Probes beyond SLF, by one protocol for all encoders: ALF and AFF.

ALF trains the head alone on adversarial images; AFF trains encoder and head by TRADES.
Both begin from the clean linear probe: from a zero head, as in the published code, ALF
was weaker after as many steps, and AFF can fall into predicting one class. Where an
encoder ends in a linear map (`pretrain.stable`), AFF trains map and head as one linear
layer. Two in a row, of very different sizes, fall apart: a priced encoder of digits
then ends with 11% of its own training images right, instead of 99%.

Published tables tune learning rates for each method; here one small grid serves every
encoder and dataset, and held-out training images choose from it under attack, never
test images, by runs of a fifth of the length. The chosen rate is then used on all
training images, and the last weights count. Images are not augmented: crops and flips
would be wrong for digits, and one protocol serves all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from robrep_eval.probes.choice import held_out
from robrep_eval.probes.linear import (
    PENALTIES,
    ProbeSettings,
    check_fit,
    features,
    validation_scores,
)
from robrep_eval.probes.logistic import fit_linear
from robrep_eval.probes.rows import Rows
from robrep_eval.probes.training import HeadTraining, Scale, TrainingSettings
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.files import read_tensors, write_tensors
from zoo.layout import ON_CPU, Layout
from zoo.linear_end import without_end
from zoo.records import ProbeRecord
from zoo.task_version import GRIDS
from zoo.threads import fitting_threads, network_work
from zoo.threat import ThreatModel

ALF = TrainingSettings(rates=(0.01, 0.05, 0.1), batch=512, decays=(0.4, 0.8))
AFF = TrainingSettings(rates=(0.01, 0.1), batch=128, decays=(0.6, 0.8))
START_TOLERANCE = 1e-3
"""Of the linear probe to begin with: it is trained on anyway."""
SAVE_SECONDS = 20.0
"""Between two saves of an unfinished fit."""


class _Fit:
    """Everything that the runs of one fit share."""

    def __init__(
        self,
        encoder: Encoder,
        train: Dataset,
        threat: ThreatModel,
        settings: TrainingSettings,
        probe: ProbeSettings,
        *,
        full: bool,
        layout: Layout,
    ) -> None:
        self.encoder, self.end = without_end(encoder) if full else (encoder, None)
        self.train, self.threat = train, threat
        self.settings, self.probe = settings, probe
        self.full, self.device = full, layout.device
        self.z = features(self.encoder, train, layout)
        self.scale = Scale.of(self.z)
        self.penalty = self._penalty()

    def _penalty(self) -> float:
        """Of the linear probe, chosen as in version 1 of SLF: it is trained on."""
        y, classes = self.train.labels, len(self.train.classes)
        quick = replace(self.probe, tolerance=START_TOLERANCE)
        if quick.penalties == PENALTIES:
            quick = replace(quick, penalties=GRIDS["SLF", 1])
        scores = validation_scores(self._ended(self.z), y, classes, quick)
        return max(scores, key=lambda penalty: (scores[penalty], penalty))

    def start(self, rows: torch.Tensor) -> nn.Linear:
        """The clean linear probe on some of the images."""
        head = fit_linear(
            self._ended(self.z[rows]),
            self.train.labels[rows],
            classes=len(self.train.classes),
            l2=self.penalty,
            tolerance=START_TOLERANCE,
        )
        return head if self.end is None else _composed(head, self.end)

    def _ended(self, z: torch.Tensor) -> torch.Tensor:
        """Features (N, d) that leave the encoder as it came, CPU."""
        return z if self.end is None else z @ self.end.cpu().T

    def run(
        self,
        rows: torch.Tensor,
        rate: float,
        saved: _Saved,
        on_progress: Callable[[float], None],
        *,
        trial: bool = False,
    ) -> HeadTraining:
        """One training run on some of the images, from where it was left."""
        training = HeadTraining(
            self.encoder,
            self.start(rows),
            self.scale,
            self.train.subset(rows),
            self.threat,
            full=self.full,
            settings=self.settings,
            rate=rate,
            device=self.device,
        )
        begin = saved.restore(training)
        with fitting_threads(network_work(self.encoder, self.train.shape)):
            training.run(
                on_progress,
                trial=trial,
                begin=begin,
                after_epoch=lambda epoch: saved.save(training, epoch),
            )
        return training


def _composed(head: nn.Linear, end: torch.Tensor) -> nn.Linear:
    """The head on what `end` (k, d) maps, as a head on d features."""
    whole = nn.Linear(end.shape[1], head.out_features).to(head.weight)
    with torch.no_grad():
        whole.weight.copy_(head.weight @ end.to(head.weight))
        whole.bias.copy_(head.bias)
    return whole


class _Saved:
    """Where a fit stands, in a file: what is chosen from, and the run under way."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.counts: list[int] = []
        """Held-out images right after each finished run."""
        self.epoch = 0
        self.last = time.monotonic()
        self.tensors: dict[str, torch.Tensor] = {}
        if path is not None and path.exists():
            self.tensors, metadata = read_tensors(path)
            self.counts, self.epoch = metadata["counts"], metadata["epoch"]

    def restore(self, training: HeadTraining) -> int:
        """Brings an interrupted run back; returns how many epochs are done."""
        begin, tensors = self.epoch, self.tensors
        self.epoch, self.tensors = 0, {}
        if begin:
            training.load_state(tensors)
        return begin

    def save(self, training: HeadTraining, epoch: int) -> None:
        """Every few seconds, after a whole epoch."""
        if self.path is None or time.monotonic() - self.last < SAVE_SECONDS:
            return
        metadata = {"counts": self.counts, "epoch": epoch}
        write_tensors(self.path, training.state(), metadata)
        self.last = time.monotonic()


def fit_adversarial(
    encoder: Encoder,
    train: Dataset,
    threat: ThreatModel,
    *,
    protocol: Literal["ALF", "AFF"],
    settings: TrainingSettings | None = None,
    probe: ProbeSettings | None = None,
    layout: Layout = ON_CPU,
    checkpoint: Path | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> tuple[Classifier, ProbeRecord]:
    """Fits by adversarial training; the given encoder is left as it is.

    Args:
        encoder: Frozen for ALF; AFF trains a copy, which the classifier holds.
        train: Training split, a part of which is held out to choose.
        threat: Of the attack in training, and of the choice.
        protocol: "ALF" or "AFF".
        settings: By default `ALF` or `AFF`.
        probe: Of the held-out part, and of the linear probe to begin with.
        layout: Where to train, and images per forward pass outside training.
        checkpoint: File to keep unfinished work in; a later call with the same
            arguments goes on from it. The caller deletes it.
        on_progress: Called with the share of the work done.

    Returns:
        The classifier, in eval mode, and the record of the fit.

    Raises:
        UserError: as `robrep_eval.probes.linear.fit_probe`.
    """
    began = time.perf_counter()
    full = protocol == "AFF"
    settings = settings or (AFF if full else ALF)
    probe = probe or ProbeSettings()
    check_fit(encoder, train)
    fit = _Fit(
        encoder,
        train,
        threat,
        settings,
        probe,
        full=full,
        layout=layout,
    )
    parts = held_out(train.labels, probe.validation_share, probe.seed)
    saved = _Saved(checkpoint)
    trials = len(settings.rates) * len(parts) * settings.trial_share
    work = trials + 1
    scores = _choose(
        fit,
        parts,
        saved,
        lambda done: on_progress(done * settings.trial_share / work),
    )
    best = max(scores, key=lambda rate: scores[rate])
    final = fit.run(
        torch.arange(len(train)),
        best,
        saved,
        lambda s: on_progress((trials + s) / work),
    )
    classifier = final.classifier()
    z = features(classifier.encoder, train, layout)
    right = Rows.of(z, train.labels).right(classifier.head.cpu())
    record = ProbeRecord(
        protocol=protocol,
        parameters={
            **{k: v for k, v in asdict(settings).items() if full or k != "beta"},
            "threat": str(threat),
            "rate": best,
            "start": f"the linear probe, l2 {fit.penalty:g}",
            "validation_pgd_accuracy": {f"{r:g}": s for r, s in scores.items()},
            "validation_share": probe.validation_share,
        },
        train=f"{train.name}/{train.split}",
        train_n=len(train),
        train_accuracy=right / len(train),
        validation_accuracy=scores[best],
        knn_accuracy=None,
        seconds=time.perf_counter() - began,
    )
    return classifier.to(layout.device), record


def _choose(
    fit: _Fit,
    parts: list[tuple[torch.Tensor, torch.Tensor]],
    saved: _Saved,
    on_progress: Callable[[float], None],
) -> dict[float, float]:
    """PGD accuracy of each rate on held-out images; progress counts runs."""
    runs = [(rate, *part) for rate in fit.settings.rates for part in parts]
    for at, (rate, fitting, held) in enumerate(runs):
        if at >= len(saved.counts):
            run = fit.run(
                fitting,
                rate,
                saved,
                lambda s, a=at: on_progress(a + s),  # type: ignore[misc]
                trial=True,
            )
            saved.counts.append(run.held(fit.train.subset(held)))
    total = sum(len(held) for _, held in parts)
    return {
        rate: sum(saved.counts[at * len(parts) : (at + 1) * len(parts)]) / total
        for at, rate in enumerate(fit.settings.rates)
    }
