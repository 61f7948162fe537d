"""Copies of a classifier whose passes cost less, for proposing adversarials.

Frozen; batch norm folded into convolutions; ReLUs in place; memory channels last. On
CPUs two gradients that torch computes slowly take another way: that of the first
convolution, with its one to three input channels, and that of the final mean. Logits
and gradients change by rounding only, if tracing saw all that the classifier does:
`robrep_eval.attacks.likeness` tells.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from zoo.nets.memory_format import memory_format

NARROW = 16
"""Output per input channel from which a convolution's gradient by columns is faster."""

_ACTIVATIONS = (F.relu, torch.relu)
_FRESH = (operator.add, torch.add)


def folded_copy(classifier: nn.Module) -> nn.Module:
    """With all that needs the graph; tracing foreign modules fails in many ways.

    Args:
        classifier: In eval mode; not changed.

    Raises:
        Exception: of any type, if it cannot be copied or traced.
    """
    from torch.fx.experimental.optimization import fuse

    graph = fuse(plain_copy(classifier))
    assert isinstance(graph, fx.GraphModule)
    _in_place(graph)
    if all(weights.device.type == "cpu" for weights in graph.parameters()):
        _narrow_convolutions(graph)
        _lay_out_gradients(graph)
    return graph.requires_grad_(False).to(memory_format=memory_format(graph))


def plain_copy(classifier: nn.Module) -> nn.Module:
    """Only its weights are laid out otherwise.

    Raises:
        Exception: of any type, if it cannot be copied.
    """
    plain = copy.deepcopy(classifier).eval().requires_grad_(False)
    return plain.to(memory_format=memory_format(plain))


def _in_place(graph: fx.GraphModule) -> None:
    """Lets ReLUs overwrite inputs that nobody else reads: saves the allocation.

    Safe for gradients: neither a convolution nor a sum needs its own output.
    """
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in _ACTIVATIONS:
            continue
        source = node.args[0]
        convolved = source.op == "call_module" and isinstance(
            modules[source.target], nn.Conv2d
        )
        summed = source.op == "call_function" and source.target in _FRESH
        if len(source.users) == 1 and (convolved or summed):
            node.target = F.relu
            node.kwargs = {"inplace": True}
            node.args = (source,)
    graph.recompile()


def _lay_out_gradients(graph: fx.GraphModule) -> None:
    """Gradients of a mean over positions are laid out like the map that it is of.

    Left alone they come in the default layout, and the ReLU below, whose output is
    channels last, takes 30 times as long over its gradient.
    """
    if memory_format(graph) != torch.channels_last:
        return
    for node in list(graph.graph.nodes):
        if _is_mean(graph, node):
            with graph.graph.inserting_before(node):
                laid = graph.graph.call_function(laid_out, (node.args[0],))
            node.replace_input_with(node.args[0], laid)
    graph.recompile()


def _is_mean(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(graph.get_submodule(str(node.target)), nn.AdaptiveAvgPool2d)
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
    means = ("mean", torch.mean)
    over_positions = node.target in means and dims in ((2, 3), (-2, -1), [2, 3])
    return over_positions or node.target is F.adaptive_avg_pool2d


def laid_out(x: Tensor) -> Tensor:
    """`x` itself, whose gradient will be channels last."""
    same: Tensor = _LaidOut.apply(x)
    return same


class _LaidOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous(memory_format=torch.channels_last)


def _narrow_convolutions(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        name = str(node.target)
        if node.op == "call_module" and _is_narrow(graph.get_submodule(name)):
            wrapped = _NarrowConvolution(graph.get_submodule(name))
            graph.set_submodule(name, wrapped)


def _is_narrow(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d  # a subclass may do something else with its weight
        and module.in_channels <= 3
        and module.out_channels >= NARROW * module.in_channels
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.weight.dtype == torch.float32
    )


class _NarrowConvolution(nn.Module):
    """A convolution of few channels, whose gradient is a product and a sum of columns.

    torch's kernels are made for many channels: over these they take 2 to 5 times as
    long (seen with 2.14).
    """

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Narrow.apply(x, self.convolution)
        return result


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, convolution: nn.Module) -> Tensor:
        ctx.convolution, ctx.size = convolution, x.shape[-2:]
        return convolution(x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), conv = gradients, ctx.convolution
        rows = gradient.permute(0, 2, 3, 1).flatten(1, 2)  # (n, positions, out)
        columns = conv.weight.flatten(1).T @ rows.transpose(1, 2)
        settings = (conv.kernel_size, conv.dilation, conv.padding, conv.stride)
        return F.fold(columns, ctx.size, *settings), None
