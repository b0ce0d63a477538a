"""``synbrain consistency``: does an adapted model behave like its subject, and not like any subject?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.analysis.options import ConsistencyOptions

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.model.synbrain import SynBrain

AS_USUAL = ConsistencyOptions()


def consistency(
    run: SynBrain,
    dataset: Dataset,
    options: ConsistencyOptions = AS_USUAL,
    *,
    out: Path,
    full_run: SynBrain | None = None,
    others: list[Dataset] | None = None,
    overwrite: bool = False,
) -> None:
    """Compare ROI profiles, category selectivity and trial patterns with the subject's own, with controls.

    Everything is measured on the test images. Writes OUT/consistency.html, consistency.json, table.md
    and consistency.png.

    Args:
        run: folder of the adapted run, or its id on the Hugging Face hub.
        dataset: the subject's dataset, with ROIs and tokens of the run's encoder.
        options: which areas and categories, and how many trials.
        out: folder to write.
        full_run: a run of the same subject with all its data.
        others: datasets of other subjects, the between-subject control; their images are told by name.
        overwrite: replace what stands at out.
    """
    from synbrain.analysis.consistency_report import consistency_report
    from synbrain.figures.consistency import consistency_figure
    from synbrain.figures.style import save_png
    from synbrain.files import require_absent, write_json, write_text
    from synbrain.viewer.consistency_page import write_consistency_page

    require_absent(out, overwrite)
    models = {"adapted": run} if full_run is None else {"adapted": run, "full": full_run}
    report = consistency_report(models, dataset, others or [], options)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "consistency.json", report.to_json())
    write_text(out / "table.md", report.table())
    save_png(consistency_figure(report), out / "consistency.png")
    page = write_consistency_page(out, report)
    print(report.table())
    print(f"consistency -> {out / 'consistency.json'}, {out / 'table.md'}, {out / 'consistency.png'}")
    print(f"page -> {page}")
