"""Several batch norms in one network: adversarial images have other statistics.

Every batch norm is replaced by a set of them, of which one is in use at a time; all
other weights are shared. For the zoo, one set is kept and the network is plain again.

Source: Xie et al. 2020, arXiv 1911.09665 (auxiliary batch norm); the sets of ACL
(arXiv 2010.13337) and AdvCL (arXiv 2111.01124).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

CLEAN, ADVERSARIAL, LABELLED = 0, 1, 2
Norms = (nn.BatchNorm1d, nn.BatchNorm2d)
RUNNING = nn.modules.batchnorm._BatchNorm
"""Base of all that keep running statistics, synchronised ones and timm's included."""


class BatchNormSets(nn.Module):
    """`count` copies of one batch norm; `using` says which one acts."""

    def __init__(self, norm: nn.Module, count: int) -> None:
        super().__init__()
        self.sets = nn.ModuleList(copy.deepcopy(norm) for _ in range(count))
        self.using = CLEAN

    def forward(self, x: Tensor) -> Tensor:
        return self.sets[self.using](x)  # type: ignore[no-any-return]


def split(module: nn.Module, count: int) -> None:
    """Replaces every batch norm inside `module` by `count` copies of itself."""
    if count == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, Norms):
            setattr(module, name, BatchNormSets(child, count))
        else:
            split(child, count)


@contextmanager
def using(index: int, *modules: nn.Module) -> Iterator[None]:
    """Set `index` acts inside; networks with single batch norms are left alone."""
    found = [
        m
        for module in modules
        for m in module.modules()
        if isinstance(m, BatchNormSets)
    ]
    before = [m.using for m in found]
    for m in found:
        m.using = index
    try:
        yield
    finally:
        for m, old in zip(found, before, strict=True):
            m.using = old


def collapsed(module: nn.Module, index: int) -> nn.Module:
    """A plain copy of `module` that keeps set `index` alone; same outputs."""
    plain = copy.deepcopy(module)
    _collapse(plain, index)
    return plain


def _collapse(module: nn.Module, index: int) -> None:
    for name, child in module.named_children():
        if isinstance(child, BatchNormSets):
            setattr(module, name, child.sets[index])
        else:
            _collapse(child, index)
