"""Several processes on one fit: each takes a block of voxels, and what it makes is brought together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor


@dataclass(frozen=True)
class Team:
    """The processes of a fit, all of which hold the same data.

    Attributes:
        rank: of this process.
        world: how many there are.

    >>> Team(1, 2).share(5)
    slice(2, 5, None)
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, state: PartialState) -> Team:
        """The processes that accelerate started."""
        return cls(state.process_index, state.num_processes)

    def share(self, n: int) -> slice:
        """This process's block of n things; all of them where there are fewer than processes."""
        return self._share_of(self.rank, n)

    def _share_of(self, rank: int, n: int) -> slice:
        if n < self.world:
            return slice(0, n)
        return slice(rank * n // self.world, (rank + 1) * n // self.world)

    def takes(self, number: int) -> bool:
        """Whether this process does the piece of work of that number."""
        return number % self.world == self.rank

    def bring_together(self, whole: Tensor, dim: int) -> None:
        """Fill each block of ``whole`` along ``dim`` from the process whose share it is, in place."""
        n = whole.shape[dim]
        if self.world == 1 or n < self.world:
            return
        for rank in range(self.world):
            part = self._share_of(rank, n)
            block = whole.narrow(dim, part.start, part.stop - part.start)
            sent = block.contiguous()
            broadcast(sent.view(torch.uint8), from_process=rank)  # in place; gloo knows no int16
            block.copy_(sent)

    def add_up(self, part: Tensor) -> None:
        """Sum ``part`` over processes, in place."""
        if self.world > 1:
            part.copy_(reduce(part, reduction="sum"))


ALONE = Team()
