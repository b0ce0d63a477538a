"""``synbrain consistency``: does an adapted model behave like its subject, and not like any subject?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.model.synbrain import SynBrain


def consistency(
    run: SynBrain,
    dataset: Dataset,
    *,
    out: Path,
    full_run: SynBrain | None = None,
    others: list[Dataset] | None = None,
    categories: Path | None = None,
    samples: int = 3,
    min_voxels: int = 10,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Compare ROI profiles, category selectivity and trial patterns with the subject's own, with controls.

    Everything is measured on the test images. Writes OUT/consistency.html, consistency.json, table.md
    and consistency.png.

    Args:
        run: folder of the adapted run, or its id on the Hugging Face hub.
        dataset: the subject's dataset, with ROIs and tokens of the run's encoder.
        out: folder to write.
        full_run: a run of the same subject with all its data.
        others: datasets of other subjects, the between-subject control; their images are told by name.
        categories: CSV with a column nsdId or name, and a column category; without it, no selectivity.
        samples: synthetic trials per test image.
        min_voxels: areas with fewer voxels are left out.
        seed: of synthetic trials and of the shuffled control.
        overwrite: replace what stands at out.
    """
    from synbrain.analysis.consistency_report import consistency_report, consistency_table, read_categories
    from synbrain.figures.consistency import consistency_figure
    from synbrain.figures.style import save_png
    from synbrain.files import require_absent, write_json, write_text
    from synbrain.viewer.consistency_page import write_consistency_page

    require_absent(out, overwrite)
    models = {"adapted": run}
    if full_run is not None:
        models["full"] = full_run
    found = consistency_report(
        models,
        dataset,
        others or [],
        categories=None if categories is None else read_categories(categories),
        n_samples=samples,
        min_voxels=min_voxels,
        seed=seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "consistency.json", found)
    words = consistency_table(found)
    write_text(out / "table.md", words)
    save_png(consistency_figure(found), out / "consistency.png")
    page = write_consistency_page(out, found)
    print(words)
    print(f"consistency -> {out / 'consistency.json'}, {out / 'table.md'}, {out / 'consistency.png'}")
    print(f"page -> {page}")
