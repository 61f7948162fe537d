"""An entry with every measurement that a result can have, published for real."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from zoo_collection import card_of

from robrep_eval import evaluate
from robrep_eval.measures.certify import Smoothing, SmoothingSettings
from robrep_eval.measures.label_free import WithoutLabels
from robrep_eval.measures.lipschitz import LipschitzMargins
from robrep_eval.measures.registry import usual
from robrep_eval.probes.linear import ProbeSettings
from zoo.collection.publish import Publication, publish
from zoo.collection.strengthen import strengthen
from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.measurements import CorruptionCell, Corruptions
from zoo.records import Proportion, Training, write_record
from zoo.result_file import read_result, write_result
from zoo.threat import ThreatModel

IMAGES = 48
NAME = "measured"
ENTRY = "digits-l2-0.35-slf-v2-50pct-apgd-dlr-fgsm-audit-6"


def publish_measured(root: Path) -> Path:
    """An evaluation of a 1-Lipschitz network, published; returns the collection."""
    torch.manual_seed(0)
    spec = EncoderSpec(
        arch="lipschitz_dense", options={"widths": [32, 32]}, shape=(1, 8, 8)
    )
    encoder = Encoder(spec).eval()
    weights = root / "plain" / NAME / "model.safetensors"
    save_encoder(encoder, weights)
    training = Training(
        method="tarrl",
        dataset="digits",
        threat=ThreatModel(norm="L2", eps=0.35),
        command="robrep-pretrain run digits-tarrl",
        recipe={"epochs": 1},
        seed=0,
        epochs=1,
        passes=2.0,
        seconds=3.0,
        versions={"torch": "2.6"},
    )
    card = card_of(encoder, NAME, weights, training=training)
    write_record(weights.parent / "card.json", card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBREP_ZOO", str(root / "plain"))
        evaluate(
            f"zoo:{NAME}",
            norm="L2",
            eps=0.35,
            attacks="apgd-dlr,fgsm,audit:6",
            limit=IMAGES,
            output=root / "run",
            probe=ProbeSettings(labels="50%"),
            measure=(
                *usual(),
                WithoutLabels(),
                Smoothing(
                    sampling=SmoothingSettings(sigma=0.1, n0=10, n=100), images=8
                ),
                LipschitzMargins(),
            ),
        )
        _add_stated(root / "run")
        publish(Publication(runs=[root / "run"]), str(root / "published"))
        evaluate(
            f"zoo:{NAME}",
            norm="L2",
            eps=0.35,
            attacks="fast",
            limit=IMAGES,
            output=root / "more",
            measure=(),
        )
        strengthen(root / "published", f"{NAME}/{ENTRY}", [root / "more"])
    return root / "published"


def _add_stated(run: Path) -> None:
    """Made up, since nobody can tell: corruptions are stated, and 8 x 8 pixels too few
    for them; so is what other packages measure."""
    result = read_result(run)
    cells = [
        CorruptionCell(corruption="fog", severity=s, accuracy=Proportion.of(40 - s, 48))
        for s in (1, 2)
    ]
    mean = sum(cell.accuracy.value for cell in cells) / 2
    made = Corruptions(source="made up", official=False, mean=mean, cells=cells)
    found = result.measurements.model_copy(
        update={"corruptions": made, "others": {"toy": {"brightness": 0.5}}}
    )
    write_result(run, result.model_copy(update={"measurements": found}))
