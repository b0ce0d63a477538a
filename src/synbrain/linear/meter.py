"""How far a fit is, in arithmetic: the bar moves by what is done, so its remaining time is to be trusted."""

from __future__ import annotations

from synbrain.progress import bar


class Meter:
    """Counts multiplications and additions of matrix products and factorisations.

    Args:
        expected: GFLOP in all, for the bar (``linear/cost.py`` foretells them).
        show: whether to show a bar.
        what: is made, for the bar.

    >>> meter = Meter()
    >>> meter.product(1000, 1000, 1000)
    >>> meter.gflop
    2.0
    """

    def __init__(self, expected: float = 0.0, *, show: bool = False, what: str = "fit linear path") -> None:
        self.gflop = 0.0
        self._bar = bar(what, total=max(1, round(expected)), unit="GFLOP", show=show)

    def add(self, flop: float) -> None:
        """Count ``flop`` operations."""
        self.gflop += flop / 1e9
        # the last GFLOP is left to the end: more may come than was foretold
        reached = min(int(self.gflop), self._bar.total - 1)
        if reached > self._bar.n:
            self._bar.update(reached - self._bar.n)

    def product(self, rows: int, inner: int, columns: int) -> None:
        """Count a matrix product (rows, inner) by (inner, columns)."""
        self.add(2.0 * rows * inner * columns)

    def catch_up(self, gflop: float) -> None:
        """Count what an earlier process did, up to ``gflop`` in all."""
        self.add(max(0.0, gflop - self.gflop) * 1e9)

    def close(self) -> None:
        """End the bar, at 100 % of what was done."""
        self._bar.total = max(1, round(self.gflop))
        self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()
