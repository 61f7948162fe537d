"""Which squares an image is still to try: draws, what is passed over, and the memory.

Two kinds of queries are passed over without a forward pass, since they cannot change
anything: those that would change no pixel of an image (all of the square already lies
on that side of the ball; integral images of the pixels on either side tell which), and
those that would repeat a square that the same image has rejected before.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from robrep_eval.attacks.noise import Noise
from robrep_eval.attacks.pool import State
from robrep_eval.attacks.problem import Problem
from robrep_eval.attacks.square_schedule import sides

LOOK_AHEAD = (8, 32, 128)
"""Queries examined at once for one that may change anything: at first, then, later."""
BLOCK = 256
"""Queries drawn at once."""
MEMORY = 2**15
"""Most different squares of one side, signs included, that an example remembers."""
Places = tuple[Tensor, Tensor]
"""Rows, and the squares' places in their blocks, (k,) each."""


class SquareQueue:
    """The squares of each row of a state, in order.

    Args:
        problem: The examples.
        noise: Positions and signs.
        run: Number of the restart.
        queries: Most squares of an example.
    """

    def __init__(
        self, problem: Problem, noise: Noise, *, run: int, queries: int
    ) -> None:
        self.problem = problem
        self.steps = queries
        _, channels, height, width = problem.x.shape
        self.squares = noise.steps(run, problem.ids, queries, 2 + channels)
        device = problem.x.device
        self.sides = torch.tensor(sides(queries, height, width, 1), device=device)
        self.ahead = [torch.arange(count, device=device) for count in LOOK_AHEAD]
        squares = height * width * 2**channels
        self.memory = squares if squares <= MEMORY else 0
        self.reach = len(self.ahead[-1])

    def begin(self, tasks: Tensor) -> State:
        """Columns of rows that just came in: the first squares, nothing rejected."""
        n, device = len(tasks), self.problem.x.device
        none = torch.zeros(n, dtype=torch.int64, device=device)
        return {
            "rejected": torch.zeros(
                n, self.memory + 1, dtype=torch.bool, device=device
            ),
            "rejected_side": none.clone(),
            **self._block(tasks, none),
        }

    def ready(self, s: State, *, several: bool, unknown: bool) -> None:
        """Before a step: as many squares are drawn as it may look at.

        Args:
            s: The rows.
            several: Whether `upcoming` will look, or `next`.
            unknown: That `late` was not asked after the last step of these rows.
        """
        reach = len(self.ahead[-1 if several else 0])
        unknown |= reach > self.reach
        self.reach = reach
        if unknown and bool(self.late(s).any()):
            self.refresh(s)

    def late(self, s: State) -> Tensor:
        """Bool (n,): the row comes near the end of its block with the next step."""
        return (s["query"] - s["block"]) + self.reach > BLOCK

    def refresh(self, s: State) -> None:
        """Draws the next block of each row that is past the middle of its own: fewer
        and larger draws than one by one."""
        late = ((s["query"] - s["block"]) > BLOCK // 2).nonzero().flatten()
        for key, column in self._block(s["task"][late], s["query"][late]).items():
            s[key][late] = column

    def upcoming(self, s: State, most: int) -> tuple[Places, Tensor, Tensor]:
        """The next squares of each row that may change anything, `most` of each.

        Returns their places, how many queries after the row's next each comes, and how
        many queries (n,) a row passes over in which there is none.
        """
        n, ahead = len(s["query"]), self.ahead[-1]
        at = (s["query"] - s["block"]).unsqueeze(1) + ahead
        waiting = s["query"].unsqueeze(1) + ahead < self.steps
        idle = self._idle(s, torch.arange(n, device=at.device), at)
        open_ = waiting & ~idle
        rank = open_.cumsum(dim=1)
        owner, offset = (open_ & (rank <= most)).nonzero(as_tuple=True)
        return (owner, at[owner, offset]), offset, waiting.sum(dim=1)

    def next(self, s: State) -> Places:
        """Moves each row's query to its next square that may change anything.

        Returns the rows and the squares' places in their blocks, (n,) each.
        """
        everyone = torch.arange(len(s["query"]), device=s["query"].device)
        rows = everyone
        for ahead in itertools.chain(self.ahead, itertools.repeat(self.ahead[-1])):
            used = s["query"] - s["block"]
            if rows is not everyone and bool((used[rows] + len(ahead) > BLOCK).any()):
                self.refresh(s)
                used = s["query"] - s["block"]
            idle = self._idle(s, rows, used[rows].unsqueeze(1) + ahead)  # (r, A)
            idle &= s["query"][rows].unsqueeze(1) + ahead < self.steps
            skipped = idle.long().cumprod(dim=1).sum(dim=1)
            s["query"][rows] += skipped
            again = (skipped == len(ahead)) & (s["query"][rows] < self.steps)
            rows = rows[again]
            if not len(rows):
                break
        place = (s["query"] - s["block"]).clamp(0, BLOCK - 1)
        return everyone, place

    def remember(self, s: State, place: Places, accepted: Tensor) -> None:
        """Notes the rejected squares; another image or side forgets them."""
        if not self.memory:
            return
        side = s["windows"][..., 2][place]
        stale = accepted | (side != s["rejected_side"])
        s["rejected"] &= ~stale.unsqueeze(1)
        s["rejected_side"] = side
        squares = s["square"][place]
        s["rejected"][place[0], squares] = ~accepted & (squares < self.memory)

    def remember_all(
        self,
        s: State,
        place: Places,
        met: Tensor,
        tried: Tensor,
        last: Tensor,
        accepted: Tensor,
    ) -> None:
        """Notes the rejected squares of the side that was tried last.

        Args:
            s: The rows.
            place: Of all squares that were judged (k,).
            met: Bool (k,), which of them counted.
            tried: Bool (n,), rows that tried any.
            last: The last of each row that counted (n,).
            accepted: Bool (n,), whether that was accepted.
        """
        if not self.memory:
            return
        side = s["windows"][..., 2][place]
        latest = torch.where(tried, side[last], s["rejected_side"])
        stale = accepted | (latest != s["rejected_side"])
        s["rejected"] &= ~stale.unsqueeze(1)
        s["rejected_side"] = latest
        squares, owner = s["square"][place], place[0]
        known = met & ~accepted[owner] & (side == latest[owner])
        squares = torch.where(known, squares, self.memory)
        s["rejected"][owner, squares] = True
        s["rejected"][:, self.memory] = False  # the place of what is not remembered

    def _block(self, tasks: Tensor, first: Tensor) -> State:
        """Squares of the `BLOCK` queries from `first` on, (n, BLOCK, ...) each.

        "corners" are the places in "areas" that tell whether a square changes a
        pixel: four for each channel, on the side of the ball that its sign points to.
        "square" numbers the squares of one side with their signs, for the memory.
        """
        n, channels, height, width = len(tasks), *self.problem.x.shape[1:]
        query = first.unsqueeze(1) + torch.arange(BLOCK, device=first.device)
        known = query.clamp(max=self.steps - 1)
        owner = tasks.to(first.device).unsqueeze(1).expand_as(query)
        draws = self.squares(owner.flatten(), known.flatten()).to(self.problem.x)
        draws = draws.view(n, BLOCK, -1)
        side = self.sides[known]
        top = (draws[..., 0] * (height - side)).long()
        left = (draws[..., 1] * (width - side)).long()
        signs = (2 * draws[..., 2:] - 1).sign()
        plane = (signs > 0) * channels + torch.arange(channels, device=first.device)
        rows = torch.stack([top + side, top, top + side, top], dim=2)
        columns = torch.stack([left + side, left + side, left, left], dim=2)
        inside = (rows * (width + 1) + columns).unsqueeze(2)  # (n, B, 1, 4)
        corners = plane.unsqueeze(3) * ((height + 1) * (width + 1)) + inside
        bits = 2 ** torch.arange(channels, device=first.device)
        square = (top * width + left) * 2**channels + ((signs > 0) * bits).sum(dim=2)
        square[(signs == 0).any(dim=2) | (not self.memory)] = self.memory  # no memory
        return {
            "block": first.clone(),
            "windows": torch.stack([top, left, side], dim=2),
            "signs": signs,
            "corners": corners.flatten(2),
            "square": square,
        }

    def _idle(self, s: State, rows: Tensor, at: Tensor) -> Tensor:
        """Bool (r, A): the square changes no pixel, or was rejected before."""
        column = rows.unsqueeze(1)
        corners = s["corners"][column, at]  # (r, A, 4 C)
        sums = s["areas"][column.unsqueeze(2), corners]
        a, b, c, d = sums.view(*at.shape, -1, 4).unbind(dim=3)
        side = s["windows"][column, at, 2]
        still = (a - b - c + d == side.square().unsqueeze(2)).all(dim=2)
        if not self.memory:
            return still
        known = s["rejected"][column, s["square"][column, at]]
        return still | (known & (side == s["rejected_side"][column]))


def areas_at_bounds(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Integral images (n, 2 * C * (H + 1) * (W + 1)) of the pixels at either bound.

    Each entry counts the pixels above and to the left of it; first those at the lower
    bound, channel by channel, then those at the upper.
    """
    bound = torch.cat([image == low, image == high], dim=1)
    sums = bound.cumsum(dim=2, dtype=torch.int32).cumsum(dim=3, dtype=torch.int32)
    return F.pad(sums, (1, 0, 1, 0)).flatten(1)
