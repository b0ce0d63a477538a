"""What a block of a benchmark takes: seconds, CPU seconds, arithmetic, memory."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import torch


class Watch:
    """CPU and wall seconds of a block, its peak own memory (anonymous pages) and peak resident memory."""

    def __enter__(self) -> Watch:
        self.own, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._begin = time.perf_counter(), time.process_time()
        return self

    def _look(self) -> None:
        while not self._stop.is_set():
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.own = max(self.own, own * 1024)
            self._stop.wait(0.1)

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin[0]
        self.cpu = time.process_time() - self._begin[1]
        self._stop.set()
        self._thread.join()

    def row(self, gflop: float | None = None) -> dict[str, Any]:
        """What the table shows; the matmul rate is measured right after the block."""
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        row = {"seconds": self.seconds, "cpu_seconds": self.cpu, "own": self.own, "resident": resident}
        if gflop is not None:
            rate = matmul_rate_of_cpu()
            row |= {"gflop": gflop, "per_cent_of_matmul_rate": 100 * gflop / self.cpu / rate, "rate": rate}
        return row | {"threads": torch.get_num_threads(), "load": os.getloadavg()[0]}


def matmul_rate_of_cpu(size: int = 2048, repeats: int = 3) -> float:
    """GFLOP per CPU second of a float32 matrix product: other work on the machine counts little."""
    a, best = torch.randn(size, size), float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        (a @ a).sum().item()
        best = min(best, time.process_time() - begin)
    return 2 * size**3 / best / 1e9
