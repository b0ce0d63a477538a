"""How far a fit is, in arithmetic: the bar moves by what is done, so its remaining time is to be trusted."""

from __future__ import annotations

from synbrain.progress import bar


class Meter:
    """Counts multiplications and additions of matrix products and factorisations.

    Args:
        expected: GFLOP in all, for the bar (``training/cost.py`` foretells them).
        show: whether to show a bar.

    >>> meter = Meter()
    >>> meter.product(1000, 1000, 1000)
    >>> meter.gflop
    2.0
    """

    def __init__(self, expected: float = 0.0, *, show: bool = False) -> None:
        self.gflop = 0.0
        self._bar = bar("fit linear path", total=max(1, round(expected)), unit="GFLOP", show=show)

    def add(self, flop: float) -> None:
        """Count ``flop`` operations."""
        before = int(self.gflop)
        self.gflop += flop / 1e9
        if int(self.gflop) > before:
            self._bar.update(int(self.gflop) - before)

    def product(self, rows: int, inner: int, columns: int) -> None:
        """Count a matrix product (rows, inner) by (inner, columns)."""
        self.add(2.0 * rows * inner * columns)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
