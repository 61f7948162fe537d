"""Linear probes that one command has fitted: what no radius changes is fitted once.

SLF sees clean images alone, so it is the same at every radius and under every attack.
Nothing is kept on disk: a run folder holds its own copy, and a command that is taken up
again fits anew what no folder holds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.run.identity import Identity
from zoo.classifier import Classifier
from zoo.encoder import Encoder
from zoo.layout import Layout
from zoo.records import ProbeRecord
from zoo.settings import dump

Fitted = tuple[Classifier, ProbeRecord]


@dataclass
class Fits:
    """Heads and their records, by what they follow from."""

    _kept: dict[str, tuple[nn.Module, ProbeRecord]] = field(default_factory=dict)

    def get(
        self,
        encoder: Encoder,
        probe: ProbeSettings,
        follows_from: Identity,
        layout: Layout,
        fit: Callable[[], Fitted],
    ) -> Fitted:
        """What `fit` gives, or gave before for all that is the same.

        Args:
            encoder: Whose features the head reads, on its device.
            probe: Protocol and settings.
            follows_from: Model, images and labels, by content; see `identify`.
            layout: As for the fit.
            fit: Called if there is none yet, or if the protocol looks at the radius.
        """
        if probe.protocol != "SLF":
            return fit()
        told = {**follows_from, "probe": dump(probe), "layout": str(layout)}
        key = json.dumps(told, sort_keys=True)
        if key not in self._kept:
            classifier, record = fit()
            self._kept[key] = copy.deepcopy(classifier.head), record
            return classifier, record
        head, record = self._kept[key]
        made = Classifier(
            encoder,
            copy.deepcopy(head),
            classes=head.out_features,  # type: ignore[arg-type]
            shape=encoder.spec.shape,
        )
        return made.to(layout.device), record
