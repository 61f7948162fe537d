"""What is packed has to survive other hardware: a lead by a hair is kept exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.classifier import Classifier
from zoo.datasets.base import from_tensors
from zoo.deltas import EXACT, MARGIN, NARROW, pack, unpack
from zoo.threat import ThreatModel
from zoo.verification import Claims


class Leads(nn.Module):
    """Class 1 leads by a share of the spread where the pixel is at least 0.6."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        lead = torch.where(x.flatten(1) > 0.59, self.share, -0.5)
        last = lead.clamp(min=0) - 1  # so that the spread is one
        return torch.cat([torch.zeros_like(lead), lead, last], dim=1)


@pytest.mark.parametrize(("times", "code"), [(0.9, EXACT), (1.1, NARROW)])
def test_a_grid_is_taken_only_if_the_wrong_class_leads_clearly(
    times: float, code: int
) -> None:
    classifier = Classifier(
        Leads(times * MARGIN), nn.Identity(), classes=3, shape=(1, 1, 1)
    )
    data = from_tensors(
        torch.full((1, 1, 1, 1), 0.5),
        torch.tensor([0]),
        name="one",
        classes=list("abc"),
    )
    claims = Claims(
        positions=torch.tensor([0]),
        attack_index=torch.tensor([0]),
        images=torch.full((1, 1, 1, 1), 0.6),
    )
    packed = pack(classifier, claims, data, ThreatModel(norm="Linf", eps=0.1))
    assert packed["code"].tolist() == [code]
    assert float(unpack(packed, data).images) == pytest.approx(0.6)
    assert MARGIN == 1e-3, "the margin that published entries were packed with"
