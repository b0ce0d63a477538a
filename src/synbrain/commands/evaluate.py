"""``synbrain evaluate``: scores on the screen, in a file, and on the run's card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.evaluation.options import EvaluateOptions

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.model.synbrain import SynBrain

AS_USUAL = EvaluateOptions()


def evaluate(
    run: SynBrain,
    dataset: Dataset,
    options: EvaluateOptions = AS_USUAL,
    *,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Score a run on the test images of a dataset, beside mean map, ridge and the noise ceiling.

    The scores are also kept in the run's folder and shown on its card.

    Args:
        run: folder of a trained run, or its id on the Hugging Face hub.
        dataset: folder of a prepared dataset with tokens of the run's encoder.
        options: sizes, seed and control rows.
        out: file to write the scores to as JSON.
        overwrite: replace an existing output.
    """
    from synbrain.evaluation.evaluate import evaluate as score
    from synbrain.evaluation.table import terminal
    from synbrain.files import require_absent
    from synbrain.model.folder import refresh_card

    if out is not None:
        require_absent(out, overwrite)
    scores = score(run, dataset, options, show_progress=True)
    print(terminal(scores))  # first: what was computed is seen even where nothing can be written
    if out is not None:
        scores.save(out, overwrite=overwrite)
        print(f"scores -> {out}")
    if run.folder is not None:
        print(refresh_card(run.folder, scores.to_json()))
