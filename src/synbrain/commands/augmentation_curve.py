"""``synbrain augmentation-curve``: what synthetic hours are worth, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from synbrain.decoding.augmentation_curve import CurveOptions

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.model.synbrain import SynBrain

AS_ASKED = CurveOptions()


def augmentation_curve(
    run: SynBrain,
    dataset: Dataset,
    options: CurveOptions = AS_ASKED,
    *,
    out: Path,
    base: Path | None = None,
    images: Dataset | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Decoders of the same real data with more and more synthetic trials; run again to go on.

    Writes OUT/curve.json, curve.png and one file for each decoder under OUT/cells.

    Args:
        run: of the subject; it should have seen the real data of the budget and no more.
        dataset: the subject's, with tokens of the decoder's encoder.
        options: arms, hours, weights and seeds; settings of the decoders.
        out: folder to write.
        base: a decoder to adapt, as published; new decoders where left out.
        images: whose images the synthetic trials show; those of the dataset where left out.
        overwrite: start again.
    """
    from synbrain.decoding.augmentation_curve import augmentation_curve as curve
    from synbrain.figures.augmentation import augmentation_figure
    from synbrain.figures.style import save_png

    result = curve(
        run,
        dataset,
        options,
        out=out,
        base=base,
        images=images,
        overwrite=overwrite,
        show_progress=True,
    )
    save_png(augmentation_figure(result), out / "curve.png")
    for point in result["points"]:
        gain = point.get("two_way_gain")
        gained = "" if gain is None else f"  gain in two-way {gain:+.3f} {point['two_way_gain_interval']}"
        print(
            f"{point['arm']:>14} {point['hours']:>5g} h  images {point['images_ranked']:.3f}  brains "
            f"{point['brains_ranked']:.3f}  two-way {point['two_way']:.3f}{gained}"
        )
    for name, problem in result["failed"].items():
        print(f"{name} failed: {problem}")
    print(f"curve -> {out / 'curve.json'}, {out / 'curve.png'}")
    return result
