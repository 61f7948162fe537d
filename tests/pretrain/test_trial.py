"""The trial before the first step: it leaves nothing behind, and says what it took."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretraining import encoder

from pretrain.data import divide
from pretrain.recipe import validate
from pretrain.run_folder import TrainingFolder
from pretrain.session import Session, Surroundings
from pretrain.trial import seconds_per_step
from zoo import datasets


@pytest.mark.parametrize("method", ["acl", "dynacl", "lore", "pgd-at"])
def test_weights_statistics_and_draws_are_as_before(
    method: str, tmp_path: Path
) -> None:
    recipe = validate(
        {
            "name": "tiny",
            "method": method,
            "arch_options": {"widths": [8, 8], "blocks": [1, 1]},
            "teacher": "zoo:simclr-digits" if method == "lore" else None,
            "threat": {"norm": "Linf", "eps": 0.1},
            "attack": {"steps": 1},
            "batch": 16,
            "epochs": 1,
            "limit": 64,
        }
    )
    if method == "lore":
        options = {"widths": [8, 8], "blocks": [1, 1], "stem_stride": 2}
        recipe = recipe.model_copy(update={"arch_options": options})
    data = divide(datasets.load("digits", "train"), recipe)
    teacher = encoder(1) if method == "lore" else None
    run = TrainingFolder(tmp_path / "run", recipe)
    session = Session(recipe, data, run, Surroundings(), teacher, 0.0)
    before = {k: v.clone() for k, v in session.method.state_dict().items()}
    random = torch.get_rng_state()
    assert seconds_per_step(session) > 0
    after = session.method.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in session.method.parameters())
