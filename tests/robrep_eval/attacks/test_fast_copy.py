"""The fast copy gives the logits and gradients of the original, and is used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from robrep_eval.attacks.fast_copy import laid_out
from robrep_eval.attacks.prepared import prepare
from zoo.classifier import Classifier
from zoo.encoder import Encoder, EncoderSpec

NARROW: dict[str, Any] = {"widths": [16, 32], "blocks": [1, 1]}
SPECS = (
    EncoderSpec(arch="resnet_s8", options=NARROW, shape=(1, 8, 8)),
    EncoderSpec(arch="resnet_s28", options=NARROW, shape=(1, 28, 28)),
    EncoderSpec(arch="resnet_s28_grid", options=NARROW, shape=(1, 28, 28)),
    EncoderSpec(arch="resnet18", shape=(3, 32, 32), mean=(0.4, 0.5, 0.5)),
)


def _classifier(encoder: nn.Module, width: int, shape: Any) -> Classifier:
    torch.manual_seed(0)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):  # not the identity
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return Classifier(encoder, nn.Linear(width, 10), classes=10, shape=shape)


def _passes(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of something that depends on all of them."""
    leaf = x.clone().requires_grad_()
    logits = module(leaf)
    (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
    return logits.detach(), gradient


def _assert_same(module: nn.Module, copied: nn.Module, x: Tensor) -> None:
    for want, got in zip(_passes(module, x), _passes(copied, x), strict=True):
        scale = float(want.abs().max())
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.arch)
def test_networks_of_the_zoo_are_sped_up_and_stay_the_same(spec: EncoderSpec) -> None:
    encoder = Encoder(spec)
    classifier = _classifier(encoder, encoder.dim, spec.shape)
    x = torch.rand(6, *spec.shape)
    copied = prepare(classifier).module
    assert isinstance(copied, fx.GraphModule)
    kinds = {type(module).__name__ for module in copied.modules()}
    assert "BatchNorm2d" not in kinds
    assert "_NarrowConvolution" in kinds
    assert any(node.target is laid_out for node in copied.graph.nodes)
    _assert_same(classifier, copied, x)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        (3, 1, 1, 1),
        (3, 2, 1, 1),
        (4, 3, 0, 1),
        (3, 1, 2, 2),
        ((2, 5), (1, 2), (0, 2), 1),
    ],
)
def test_gradients_of_narrow_convolutions(
    channels: int, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> None:
    convolution = nn.Conv2d(channels, 32, kernel, stride, padding, dilation)
    net = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = _classifier(net, 32, (channels, 9, 11))
    x = torch.rand(3, channels, 9, 11)
    copied = prepare(classifier).module
    assert "_NarrowConvolution" in {type(m).__name__ for m in copied.modules()}
    _assert_same(classifier, copied, x)


class Standardised(nn.Conv2d):
    """A convolution that computes with another weight than it holds."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / self.weight.flatten(1).std(dim=1).view(-1, 1, 1, 1)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Untraceable(nn.Module):
    """Takes a branch on what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 32, 3)
        self.norm = nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.norm(self.convolution(x))
        return maps.mean(dim=(2, 3)) if maps.sum() > 1e9 else maps.amax(dim=(2, 3))


@pytest.mark.parametrize("kind", [Standardised, Untraceable])
def test_strange_modules_are_left_as_they_are(kind: type[nn.Module]) -> None:
    if kind is Standardised:
        maps = nn.Sequential(Standardised(1, 32, 3), nn.ReLU())
        encoder: nn.Module = nn.Sequential(maps, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    else:
        encoder = Untraceable()
    classifier = _classifier(encoder, 32, (1, 8, 8))
    x = torch.rand(5, 1, 8, 8)
    _assert_same(classifier, prepare(classifier).module, x)
