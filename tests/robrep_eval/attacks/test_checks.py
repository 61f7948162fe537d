"""What is refused before anything is attacked, by which attacks are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from toy_darker import Darker

from robrep_eval.attacks.base import needs_gradients
from robrep_eval.attacks.battery import Battery, build
from robrep_eval.attacks.checks import check_classifier
from robrep_eval.attacks.transfer import TransferAttack
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset, from_tensors
from zoo.errors import UserError


def _data() -> Dataset:
    x = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return from_tensors(x, torch.zeros(9).long(), name="nine", classes=list("abc"))


class Cut(nn.Linear):
    """No graph leads to the images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)).detach()


class Crowd(nn.Linear):
    """Centres the batch."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return super().forward(flat - 0.1 * flat.mean(dim=0))


class Offset(nn.Linear):
    """Noise that is small beside the logits, but not beside their differences."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)) + 1000 + 0.1 * torch.randn(len(x), 3)


def _classifier(kind: type[nn.Linear]) -> Classifier:
    torch.manual_seed(0)
    return Classifier(kind(16, 3), nn.Identity(), classes=3, shape=(1, 4, 4))


@dataclass(frozen=True, kw_only=True)
class Blind(Darker):
    """An attack of another package that says what it does without."""

    name: str = "blind"
    gradients: bool = False


@pytest.mark.parametrize("engine", ["robrep", "reference"])
@pytest.mark.parametrize("name", ["square", "hopskipjump", "boundary"])
def test_what_asks_for_no_gradient_may_attack_what_has_none(
    name: str, engine: str
) -> None:
    check_classifier(_classifier(Cut), _data(), build(name, engine), "cpu")


@pytest.mark.parametrize("engine", ["robrep", "reference"])
@pytest.mark.parametrize("name", ["apgd-ce", "fab-t", "pgd", "cw", "universal"])
def test_what_needs_a_gradient_may_not(name: str, engine: str) -> None:
    battery = build(f"square,{name}", engine)
    with pytest.raises(UserError, match="no gradient reaches the images"):
        check_classifier(_classifier(Cut), _data(), battery, "cpu")


def test_attacks_of_other_packages_need_gradients_unless_they_say_no() -> None:
    both = Battery("toys", "robrep", (Blind(), Darker()))
    with pytest.raises(UserError, match="no gradient"):
        check_classifier(_classifier(Cut), _data(), both, "cpu")
    blind = Battery("toys", "robrep", (Blind(),))
    assert check_classifier(_classifier(Cut), _data(), blind, "cpu") == []


def test_a_transfer_takes_gradients_of_its_source_alone() -> None:
    assert not needs_gradients(TransferAttack(reference="zoo:simclr-digits"))


def test_rows_that_influence_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="rows of a batch influence each other"):
        check_classifier(_classifier(Crowd), _data(), build("square"), "cpu")


def test_noise_is_measured_against_the_differences_of_logits() -> None:
    with pytest.raises(UserError, match="stochastic"):
        check_classifier(_classifier(Offset), _data(), build("square"), "cpu")
