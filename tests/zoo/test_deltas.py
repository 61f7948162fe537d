"""What is packed has to survive other hardware: a lead by a hair is kept exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.classifier import Classifier
from zoo.datasets.base import Dataset, from_tensors
from zoo.deltas import EXACT, LEVELS, MARGIN, NARROW, WIDE, pack, unpack
from zoo.errors import VerificationError
from zoo.evidence_file import Claims
from zoo.threat import ThreatModel


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
    assert float(unpack(packed, data).images[:]) == pytest.approx(0.6)
    assert MARGIN == 1e-3, "the margin that published entries were packed with"


@pytest.fixture
def packed() -> tuple[dict[str, Tensor], Dataset]:
    """Two claims on the last two of three images, as integers."""
    classifier = Classifier(Leads(0.1), nn.Identity(), classes=3, shape=(1, 1, 1))
    x = torch.tensor([0.3, 0.5, 0.52]).view(3, 1, 1, 1)
    data = from_tensors(x, torch.zeros(3).long(), name="three", classes=list("abc"))
    claims = Claims(
        positions=torch.tensor([1, 2]),
        attack_index=torch.tensor([0, 5]),
        images=torch.full((2, 1, 1, 1), 0.6),
    )
    return pack(classifier, claims, data, ThreatModel(norm="Linf", eps=0.1)), data


def test_what_was_packed_comes_back(packed: tuple[dict[str, Tensor], Dataset]) -> None:
    tensors, data = packed
    found = unpack(tensors, data)
    assert found.positions.tolist() == [1, 2]
    assert found.attack_index.tolist() == [0, 5]
    # Signs alone, pushed to the edge of the ball.
    assert tensors["code"].tolist() == [NARROW, NARROW]
    torch.testing.assert_close(found.images[:].flatten(), torch.tensor([0.6, 0.62]))


def test_numbers_that_published_files_hold() -> None:
    assert (NARROW, WIDE, EXACT) == (0, 1, 2)
    assert LEVELS == (1, 7, 127, 32767)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("positions", torch.tensor([1, 3]), "beyond the data"),
        ("positions", torch.tensor([-1, 2]), "beyond the data"),
        ("positions", torch.tensor([1]), "differ in length"),
        ("narrow", torch.zeros(0, dtype=torch.uint8), "damaged"),
        ("code", torch.tensor([NARROW, WIDE], dtype=torch.uint8), "damaged"),
        ("code", torch.zeros(2), "code is"),
    ],
)
def test_what_is_damaged_is_refused(
    packed: tuple[dict[str, Tensor], Dataset], name: str, value: Tensor, reason: str
) -> None:
    tensors, data = packed
    with pytest.raises(VerificationError, match=reason):
        unpack({**tensors, name: value}, data)
