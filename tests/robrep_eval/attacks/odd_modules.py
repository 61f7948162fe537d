"""Classifiers that are odd in one way each, around a plain one: foreign, but lawful.

Each function takes a plain network (n, 1, 8, 8) -> (n, 10) and gives an odd one.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

Wrap = Callable[[nn.Sequential], nn.Module]


class Before(nn.Module):
    """Something done to the images first."""

    def __init__(self, do: Callable[[Tensor], Tensor], net: nn.Module) -> None:
        super().__init__()
        self.do = do
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.do(x))  # type: ignore[no-any-return]


class Around(nn.Module):
    """Any forward pass that uses the network."""

    def __init__(
        self, do: Callable[[nn.Module, Tensor], Tensor], net: nn.Module
    ) -> None:
        super().__init__()
        self.do = do
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.do(self.net, x)


class Round(torch.autograd.Function):
    """Straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Scale(torch.autograd.Function):
    """A right backward pass of a forward pass that autograd cannot follow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach() * 1.25

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 1.25


class Bpda(torch.autograd.Function):
    """Backwards another function: a smooth one, differentiated on the spot."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0.5).to(x) * 0.5 + x * 0.5

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            smooth = torch.sigmoid(8 * (leaf - 0.5)) * 0.5 + leaf * 0.5
            (gradient,) = torch.autograd.grad(smooth, leaf, gradients[0])
        return gradient  # type: ignore[no-any-return]


class Misled(torch.autograd.Function):
    """A gradient that points away in every fourth column."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        signs = torch.ones_like(gradients[0])
        signs[..., ::4] = -1
        return gradients[0] * signs


def _when_differentiated(x: Tensor) -> Tensor:
    return Misled.apply(x) if x.requires_grad else x


def _by_grad_mode(x: Tensor) -> Tensor:
    return x.clone() if not torch.is_grad_enabled() else x * 0.5 + (x * 0.5).detach()


def _shifted(x: Tensor) -> Tensor:
    with torch.no_grad():
        local = F.avg_pool2d(x, 3, 1, 1)
    return x * 1.2 - 0.2 * local


def _in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x.mul_(2).sub_(1)
    x += 1
    return x.div_(2)


def _hooked_tensor(x: Tensor) -> Tensor:
    x = x * 1.0
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * torch.linspace(-1, 2, 8))
    return x


def _row_by_row(net: nn.Module, x: Tensor) -> Tensor:
    rows = [net(row if row.mean() > 0.3 else row * 1.05) for row in x.split(1)]
    return torch.cat(rows)


def _by_size(net: nn.Module, x: Tensor) -> Tensor:
    if len(x) == 1:
        return net(x.repeat(2, 1, 1, 1))[:1]  # type: ignore[no-any-return]
    return torch.cat([net(half) for half in x.chunk(2)])


def _vmapped(net: nn.Module, x: Tensor) -> Tensor:
    rows: Tensor = torch.func.vmap(lambda row: net(row[None])[0])(x)
    return rows


def _purified(net: nn.Module, x: Tensor) -> Tensor:
    """A step of its own gradient first; differentiable twice."""
    step = torch.func.grad(lambda z: net(z).logsumexp(dim=1).sum())(x)
    return net(x + 0.01 * step)  # type: ignore[no-any-return]


def _purified_by_autograd(net: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (step,) = torch.autograd.grad(net(leaf).logsumexp(dim=1).sum(), leaf)
    return net(x + 0.01 * step.detach())  # type: ignore[no-any-return]


def _autocast(net: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return net(x)  # type: ignore[no-any-return]


def _spectrum(x: Tensor) -> Tensor:
    back: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * 1.1, s=x.shape[-2:])
    return back


def _flat_view(x: Tensor) -> Tensor:
    """As views, which some memory layouts do not allow."""
    flat = x.repeat(1, 2, 1, 1).view(x.shape[0], -1)
    return flat[:, :64].reshape(x.shape)


def before(do: Callable[[Tensor], Tensor]) -> Wrap:
    return lambda net: Before(do, net)


def around(do: Callable[[nn.Module, Tensor], Tensor]) -> Wrap:
    return lambda net: Around(do, net)


def forward_hook(net: nn.Sequential) -> nn.Module:
    net[0].register_forward_hook(lambda module, inputs, output: output * 1.5)
    return net


def pre_hook(net: nn.Sequential) -> nn.Module:
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 1.2,))
    return net


def backward_hook(net: nn.Sequential) -> nn.Module:
    def turn(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        return tuple(g * torch.linspace(-1, 2, 8) for g in inputs if g is not None)

    net[0].register_full_backward_hook(turn)
    return net


def backward_pre_hook(net: nn.Sequential) -> nn.Module:
    def sign(module: nn.Module, outputs: Any) -> Any:
        return (outputs[0].sign() * 1e-3,)

    net[2].register_full_backward_pre_hook(sign)
    return net


def _checkpointed(net: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(net, x, use_reentrant=False)  # type: ignore[no-any-return]


def weight_norm(net: nn.Sequential) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(net[3])
    return net


def parametrised(net: nn.Sequential) -> nn.Module:
    parametrizations.weight_norm(net[3])
    parametrizations.spectral_norm(net[6])
    nn.init.constant_(net[6].bias, 0.0)  # type: ignore[arg-type]
    return net.eval()


def data_parallel(net: nn.Sequential) -> nn.Module:
    return nn.DataParallel(net)


def scripted(net: nn.Sequential) -> nn.Module:
    return torch.jit.script(net)


class Counting(nn.Module):
    """Writes to a buffer and an attribute in each pass."""

    count: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seen: list[int] = []
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x)
        self.seen.append(x.shape[0])
        return self.net(x)  # type: ignore[no-any-return]


class Locked(nn.Module):
    """Cannot be copied: holds a lock."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.net(x)  # type: ignore[no-any-return]


class Spying(nn.Module):
    """Goes on with what a hook saw, not with what the module gave."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net
        self.seen: dict[str, Tensor] = {}
        net[2].register_forward_hook(lambda m, i, o: self.seen.update(maps=o))

    def forward(self, x: Tensor) -> Tensor:
        self.net(x)
        return self.net[3:](self.seen["maps"] * 1.0)  # type: ignore[no-any-return]


class Attentive(nn.Module):
    """LayerNorm and attention over the maps' positions; its fast path has no graph."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps, self.rest = net[:5], net[5:]
        self.layer = nn.TransformerEncoderLayer(32, 4, 32, batch_first=True)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        tokens = maps.flatten(2).transpose(1, 2)
        mixed = (self.layer(tokens) * 0.2).transpose(1, 2).reshape(maps.shape)
        return self.rest(maps + mixed)  # type: ignore[no-any-return]


ODD: dict[str, Wrap] = {
    "plain": lambda net: net,
    "straight through": before(Round.apply),
    "detached forward": before(Scale.apply),
    "bpda": before(Bpda.apply),
    "misled": before(Misled.apply),
    "misled when differentiated": before(_when_differentiated),
    "by grad mode": before(_by_grad_mode),
    "without gradient in part": before(_shifted),
    "tensor detached": before(lambda x: x + ((4 * x).round() / 4 - x).detach()),
    "in place": before(_in_place),
    "tensor hook": before(_hooked_tensor),
    "forward hook": forward_hook,
    "pre-hook": pre_hook,
    "backward hook": backward_hook,
    "backward pre-hook": backward_pre_hook,
    "spying hook": Spying,
    "checkpoint": around(_checkpointed),
    "vmap": around(_vmapped),
    "func.grad": around(_purified),
    "autograd inside": around(_purified_by_autograd),
    "row by row": around(_row_by_row),
    "by batch size": around(_by_size),
    "weight norm": weight_norm,
    "parametrised": parametrised,
    "data parallel": data_parallel,
    "scripted": scripted,
    "autocast": around(_autocast),
    "spectrum": before(_spectrum),
    "views": before(_flat_view),
    "counting": Counting,
    "locked": Locked,
    "attention": Attentive,
}
