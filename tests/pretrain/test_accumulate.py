"""A batch in parts: for which methods it is the same step, and who is refused."""

from __future__ import annotations

import pretraining as tiny
import pytest
import torch
from torch import Tensor, nn

from pretrain.build import check
from pretrain.methods.base import Batch, Method
from pretrain.randomness import ImageGenerator
from pretrain.recipe import validate
from zoo import datasets
from zoo.errors import UserError
from zoo.threat import ThreatModel

BESIDE = {"reference": "teacher", "scale": "none"}
CASES: list[tuple[str, dict[str, str]]] = [(name, {}) for name in tiny.ALL] + [
    ("tarrl", BESIDE),
    ("tarrl", {"reference": "teacher"}),
    ("tarrl", {"scale": "none"}),
]


def _made(name: str, options: dict[str, str]) -> Method:
    """Without batch statistics; smooth in its start, unlike with signs of gradients."""
    threat = ThreatModel(norm="L2", eps=0.5)
    made = tiny.method(name, options=options, threat=threat)
    made.frozen_norms = True
    if made.projector_sets():
        torch.manual_seed(1)
        made.projector = nn.Linear(8, 4)
    return made.train()


def _loss(made: Method, rows: slice) -> Tensor:
    whole = tiny.batch(8)
    draws = ImageGenerator(0, "step", 0, torch.arange(8)[rows])
    losses = made(Batch(x=whole.x[rows], y=whole.y[rows], generator=draws))
    return torch.stack(list(losses.values())).sum().detach()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_method_splits_where_its_loss_is_the_mean_of_its_parts(
    name: str, options: dict[str, str]
) -> None:
    made = _made(name, options)
    whole = float(_loss(made, slice(None)))
    parts = [float(_loss(_made(name, options), slice(i, i + 2))) for i in (0, 2, 4, 6)]
    same = sum(parts) / 4 == pytest.approx(whole, rel=1e-4)
    assert same == made.splits(made.options)


def test_methods_whose_images_meet_are_refused() -> None:
    content = {"name": "a", "epochs": 1, "draws": "image", "accumulate": 4}
    data = datasets.load("digits", "train")
    threat = {"norm": "Linf", "eps": 0.1}
    for name in ("simclr", "acl", "tarrl"):
        recipe = validate({**content, "method": name, "threat": threat})
        with pytest.raises(UserError, match=f"accumulate 4 .* method '{name}'.*meet"):
            check(recipe, data)
    check(validate({**content, "method": "trades", "threat": threat}), data)
