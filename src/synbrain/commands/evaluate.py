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
    decoder: Path | None = None,
    second_decoder: Path | None = None,
    renderer: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Score a run on the test images of a dataset, beside mean map, ridge and the noise ceiling.

    The scores are also kept in the run's folder and shown on its card.

    Args:
        run: folder of a trained run, or its id on the Hugging Face hub.
        dataset: folder of a prepared dataset with tokens of the run's encoder.
        options: sizes, seed and control rows.
        decoder: a frozen decoder of the subject, which measured, synthetic and predicted responses are put
            through as well; its scores stand beside the others in ``out`` (`-decoding.json`).
        second_decoder: one of another encoder's tokens: says by how much the first flatters the run.
        renderer: score decoded pictures too: pixels, nearest, or the path of an unCLIP checkpoint.
        out: file to write the scores to as JSON.
        overwrite: replace an existing output.
    """
    from synbrain.errors import SynBrainError
    from synbrain.evaluation.evaluate import evaluate as score
    from synbrain.evaluation.table import terminal
    from synbrain.files import require_absent
    from synbrain.model.folder import refresh_card

    decoded = None if out is None else out.with_name(f"{out.stem}-decoding.json")
    for path in (out, decoded if decoder is not None else None):
        if path is not None:
            require_absent(path, overwrite)
    if decoder is None and (second_decoder is not None or renderer is not None):
        raise SynBrainError("a second decoder or a renderer without a decoder", "pass --decoder too")
    scores = score(run, dataset, options, show_progress=True)
    kept = []
    try:  # written first, as the reader of a pipe may go; what was computed is seen even where that fails
        if out is not None:
            scores.save(out, overwrite=overwrite)
            kept.append(f"scores -> {out}")
        if run.folder is not None:
            kept.append(refresh_card(run.folder, scores.to_json()))
    finally:
        print("\n".join([terminal(scores), *kept]))
    if decoder is not None:
        _decode(run, dataset, options, decoder, second_decoder, renderer, decoded)


def _decode(
    run: SynBrain,
    dataset: Dataset,
    options: EvaluateOptions,
    decoder: Path,
    second: Path | None,
    renderer: str | None,
    out: Path | None,
) -> None:
    from synbrain.decoding.flattery import evaluate_semantics
    from synbrain.decoding.options import DecoderEvaluation
    from synbrain.files import write_json

    n_way = min(options.n_way, len(dataset.image_rows("test")))
    how = DecoderEvaluation(n_way=n_way, seed=options.seed, subject=options.subject, renderer=renderer)
    read = evaluate_semantics(run, dataset, decoder, how, second=second)
    print(f"\n{read.table()}")
    if out is not None:
        write_json(out, read.to_json())
        print(f"decoding -> {out}")
