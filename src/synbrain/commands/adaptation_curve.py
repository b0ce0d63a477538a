"""``synbrain adaptation-curve``: scores of an adapted model against the number of images, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.training.options import AdaptOptions

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.model.synbrain import SynBrain

OF_BASE = AdaptOptions()
BUDGETS = ["10", "25", "50", "100", "all"]


def adaptation_curve(
    run: SynBrain,
    dataset: Dataset,
    *,
    out: Path,
    budgets: list[str] = BUDGETS,
    options: AdaptOptions = OF_BASE,
    draws: int = 5,
    full_run: SynBrain | None = None,
    overwrite: bool = False,
) -> None:
    """Score adaptation on several numbers of training images, beside its baselines.

    The baselines are ridge and a calibrated model from scratch on the same images, the base as it is, the
    mean map and the full-data model. Writes OUT/curve.json, table.md and curve.png.

    Args:
        run: folder of the base run, or its id on the Hugging Face hub.
        dataset: the new subject's dataset, with tokens of the run's encoder.
        out: folder to write.
        budgets: numbers of distinct training images, 1h (250 images) or all.
        options: of the adaptation; its budget is replaced, its seed is that of the first draw.
        draws: random draws of the images of each budget.
        full_run: a run of this subject with all its data; trained on the spot if left out.
        overwrite: replace what stands at out.
    """
    from synbrain.comparison.adaptation_curve import adaptation_curve, curve_table
    from synbrain.figures.adaptation import curve_figure
    from synbrain.figures.style import save_png
    from synbrain.files import require_absent, write_json, write_text

    require_absent(out, overwrite)
    curve = adaptation_curve(run, dataset, budgets, options, draws=draws, full=full_run, show_progress=True)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "curve.json", curve)
    write_text(out / "table.md", curve_table(curve))
    save_png(curve_figure(curve), out / "curve.png")
    print(curve_table(curve))
    print(f"curve -> {out / 'curve.json'}, {out / 'table.md'}, {out / 'curve.png'}")
