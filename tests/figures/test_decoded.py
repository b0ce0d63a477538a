from __future__ import annotations

import numpy as np
import pytest

from synbrain.figures.decoded import decoded_figure


def test_a_grid_of_pictures_has_a_row_for_each_way() -> None:
    rng = np.random.default_rng(0)
    rows = {
        "seen": list(rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)),
        "decoded": list(rng.integers(0, 256, (3, 5, 5, 3), dtype=np.uint8)),
    }
    figure = decoded_figure(rows, names=["a", "b", "c"])
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]
    assert figure.axes[3].get_ylabel() == "decoded"
    with pytest.raises(ValueError, match="different length"):
        decoded_figure(rows | {"other": rows["seen"][:2]})
