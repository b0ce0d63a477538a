"""Training curves: a line for each seed, a dot at the epoch kept, equal curves once."""

from __future__ import annotations

from synbrain.figures.training import PANELS, autoencoder_curves


def curves(worse: float = 0.0) -> dict[str, list[dict[str, float]]]:
    epochs = [
        {key: value + worse for key in ("validation", *(k for _, k, _ in PANELS))}
        for value in (3.0, 1.0, 2.0)
    ]
    return {"autoencoder": epochs, "second": [{"validation": 4.0 + worse}, {"validation": 5.0}]}


def test_lines_dots_and_shared_autoencoders() -> None:
    other = curves()
    other["second"] = [{"validation": 9.0}]
    found = {
        "mlp_ae": {"seed0": curves(), "seed1": curves(0.5)},
        "mlp_vae": {"seed0": curves(7)},
        "same": {"seed0": other, "seed1": curves(0.5)},
    }
    panels = autoencoder_curves(found).axes
    assert [axes.get_title() for axes in panels] == [title for _, _, title in PANELS]
    first, last = panels[0], panels[-1]
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["mlp_ae, same", "mlp_vae"]
    assert [list(line.get_xdata()) for line in first.lines] == [[1, 2, 3], [2]] * 3
    assert list(first.lines[0].get_ydata()) == [3, 1, 2]
    assert first.lines[1].get_ydata() == 1
    assert [text.get_text() for text in last.get_legend().get_texts()] == ["mlp_ae", "mlp_vae", "same"]
    assert len(last.lines) == 10
