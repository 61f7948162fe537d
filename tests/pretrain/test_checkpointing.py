"""Activations computed again: the same numbers, and less that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pretraining as tiny
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from pretrain.checkpointing import blocks, checkpointed, found_blocks
from pretrain.methods.base import Method
from pretrain.recipe import AttackSettings, validate
from zoo.errors import UserError

RECIPE = validate(
    {
        "name": "a",
        "method": "pgd-at",
        "epochs": 1,
        "arch": "timm:some",
        "checkpoint_activations": True,
    }
)
METHODS = ("simclr", "acl", "dynacl", "advcl", "tarrl", "trades", "fare", "lore")


def _made(name: str, mode: str) -> Method:
    torch.manual_seed(3)
    made = tiny.method(name)
    made.inner = AttackSettings(steps=2, mode=mode)
    return made


def _step(made: Method, parts: list[nn.Module]) -> dict[str, Tensor]:
    """Loss parts, gradients and running statistics after one step."""
    with checkpointed(parts):
        losses = made(tiny.batch(6))
    torch.stack(list(losses.values())).sum().backward()
    gradients = {k: p.grad for k, p in made.named_parameters() if p.grad is not None}
    return {**losses, **gradients, **dict(made.named_buffers())}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_the_same_numbers(name: str, mode: str) -> None:
    """Also where a backward pass comes after other batch norms were in use."""
    expected = _step(_made(name, mode), [])
    made = _made(name, mode)
    parts = found_blocks(made, RECIPE)
    assert len(parts) == (4 if name == "dynacl" else 2)
    found = _step(made, parts)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key)
    assert not any("forward" in part.__dict__ for part in parts)


@contextmanager
def _counted(kept: list[int]) -> Iterator[None]:
    """Bytes of what is kept for backward passes: each storage once."""
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
    kept.append(sum(t.untyped_storage().nbytes() for t in seen.values()))


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4), 4),
        (lambda: timm.create_model("resnet18"), 8),
        (lambda: torchvision.models.resnet18(), 8),
        (lambda: timm.create_model("convnext_atto"), 12),
    ],
)
def test_less_is_kept_of_networks_of_other_libraries(
    network: object, count: int
) -> None:
    torch.manual_seed(0)
    made: nn.Module = network().train()  # type: ignore[operator]
    parts = blocks(made)
    assert len(parts) == count
    x, kept, found = torch.rand(8, 3, 32, 32), list[int](), list[Tensor]()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    for again in ([], parts):
        made.load_state_dict(before)
        made.zero_grad()
        with _counted(kept), checkpointed(again):
            loss = made(x).square().mean()
        loss.backward()
        gradients = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
        found.append(torch.cat([loss.detach().view(1), *gradients]))
    torch.testing.assert_close(found[1], found[0])
    weights = sum(p.numel() * p.element_size() for p in made.parameters())
    assert kept[1] - weights < 0.5 * (kept[0] - weights)


def test_draws_inside_a_block_are_drawn_again() -> None:
    first = nn.Linear(4, 4)
    block = nn.Sequential(first, nn.Dropout(0.5), nn.Linear(4, 1))

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = block

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    network = nn.Sequential(Wrapped())
    x = torch.rand(64, 4)
    gradients = []
    for parts in ([], blocks(network)):
        network.zero_grad()
        torch.manual_seed(5)
        with checkpointed(parts):
            loss = network(x).sum()
        torch.rand(3)
        loss.backward()
        assert first.weight.grad is not None
        gradients.append(first.weight.grad.clone())
    assert torch.equal(gradients[0], gradients[1])


def test_a_network_without_blocks_is_told() -> None:
    plain = tiny.method("pgd-at", net=tiny.Plain())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="found no blocks in arch 'timm:some'"):
        found_blocks(plain, RECIPE)
