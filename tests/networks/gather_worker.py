"""One of two processes that compute the contrastive loss over their common batch: FOLDER RANK."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from synbrain.networks.losses import soft_clip


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    z, tokens = torch.load(folder / "batch.pt", weights_only=True)
    mine = z[rank * 3 : rank * 3 + 3].clone().requires_grad_()
    loss = soft_clip(mine, tokens[rank * 3 : rank * 3 + 3], gathered=True)
    loss.backward()
    assert mine.grad is not None
    torch.save((loss.detach(), mine.grad / 2), folder / f"{rank}.pt")  # data-parallel training averages
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
