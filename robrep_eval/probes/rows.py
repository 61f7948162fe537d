"""Features and labels that a probe is fitted on, block by block, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

BLOCK_BYTES = 1 << 25
"""Of float64 that a block of features, or of logits, takes at most."""
GROUPS = 8
"""Into which large sets are divided for sums; see `robrep_eval.probes.team`."""


class Rows:
    """Features (N, d) in parts, which may be memory-mapped, and labels (N,).

    Args:
        parts: (n, d) each, any floating dtype, on the CPU or where they are computed.
        y: int64.
        device: Where blocks go.
        chosen: Ascending row numbers, for a part of them.
    """

    def __init__(
        self,
        parts: Sequence[Tensor],
        y: Tensor,
        device: str | torch.device = "cpu",
        chosen: Tensor | None = None,
    ) -> None:
        self.parts, self.labels, self.device = list(parts), y, torch.device(device)
        self.chosen = chosen
        ends = torch.tensor([len(part) for part in self.parts]).cumsum(0)
        self.ends: list[int] = ends.tolist()

    @classmethod
    def of(cls, z: Tensor, y: Tensor) -> Rows:
        """Of features in memory, which are computed with where they are."""
        return cls([z], y, z.device)

    def __len__(self) -> int:
        return len(self.labels) if self.chosen is None else len(self.chosen)

    @property
    def dim(self) -> int:
        """d."""
        return int(self.parts[0].shape[1])

    @property
    def y(self) -> Tensor:
        """Labels of the rows (N,), on the CPU."""
        y = self.labels.cpu()
        return y if self.chosen is None else y[self.chosen]

    def subset(self, rows: Tensor) -> Rows:
        """Some of the rows, by ascending numbers; copies no feature."""
        rows = rows if self.chosen is None else self.chosen[rows]
        return Rows(self.parts, self.labels, self.device, rows)

    def groups(self, width: int) -> int:
        """How many groups there are, by the size of the set alone; see `blocks`."""
        return GROUPS if len(self) > self._size(width) else 1

    def blocks(
        self, width: int, group: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (n, d), float64, and labels (n,), on the device, in order.

        Args:
            width: Of the widest matrix that is made of a block, if above d.
            group: Which of the groups; all rows by default.
        """
        start, stop = 0, len(self)
        if group is not None:
            of = self.groups(width)
            start, stop = len(self) * group // of, len(self) * (group + 1) // of
        step = self._size(width)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            y = self.labels[self._numbers(first, last)]
            yield self._features(first, last).double(), y.to(self.device)

    def first(self, rows: Tensor) -> Tensor:
        """Features (n, d) of some rows by ascending numbers, float32, on the CPU."""
        some = self.subset(rows)
        return some._features(0, len(some)).float().cpu()

    def right(self, head: nn.Module) -> int:
        """How many rows have their largest logit at their label."""
        found = 0
        with torch.inference_mode():
            for z, y in self.blocks(self.dim):
                found += int((head(z.float()).argmax(dim=1) == y).sum())
        return found

    def _size(self, width: int) -> int:
        return max(64, BLOCK_BYTES // (8 * max(width, self.dim)))

    def _numbers(self, first: int, last: int) -> slice | Tensor:
        return slice(first, last) if self.chosen is None else self.chosen[first:last]

    def _features(self, first: int, last: int) -> Tensor:
        """Of consecutive rows (n, d), on the device."""
        found = []
        begin = 0
        for part, end in zip(self.parts, self.ends, strict=True):
            if self.chosen is None:
                here = part[max(first - begin, 0) : max(min(last, end) - begin, 0)]
            else:
                own = self.chosen[first:last]
                low, high = torch.searchsorted(own, torch.tensor([begin, end])).tolist()
                here = part[(own[low:high] - begin).to(part.device)]
            if len(here):
                found.append(here.to(self.device))
            begin = end
        return found[0] if len(found) == 1 else torch.cat(found)
