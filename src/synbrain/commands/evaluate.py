"""``synbrain evaluate``: score a run on a dataset."""

from __future__ import annotations

from pathlib import Path


def evaluate(
    run: Path,
    dataset: Path,
    *,
    out: Path | None = None,
    samples: int = 20,
    seed: int = 0,
    rows: list[str] = ["mean_map", "ridge", "ceiling", "oracle"],
    subject: str | None = None,
    n_way: int = 300,
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Score a run on the test images of a dataset, beside mean map, ridge and the noise ceiling.

    The scores are also kept in the run's folder and shown on its card.

    Args:
        run: folder of a trained run, or its id on the Hugging Face hub.
        dataset: folder of a prepared dataset with tokens of the run's encoder.
        out: file to write the scores to as JSON.
        samples: synthetic trials per test image (at least 19 for 90 % intervals).
        seed: of synthetic trials, baselines, retrieval subsets and bootstrap.
        rows: control rows beside the run: names of baselines, ceiling, oracle (simulated data only).
        subject: of a run with several subjects; the dataset's own where left out.
        n_way: candidates in raw and synthetic retrieval.
        device: where the run's networks work: cpu, cuda, ..., or auto.
        overwrite: replace an existing output.
    """
    from synbrain.data.dataset import load_dataset
    from synbrain.evaluation.evaluate import evaluate as score
    from synbrain.evaluation.options import EvaluateOptions
    from synbrain.evaluation.table import terminal
    from synbrain.features.encoder import pick_device
    from synbrain.files import require_absent
    from synbrain.model.folder import refresh_card
    from synbrain.model.synbrain import SynBrain
    from synbrain.training.overrides import overridden

    if out is not None:
        require_absent(out, overwrite)
    given = {"samples": samples, "seed": seed, "rows": rows, "subject": subject, "n_way": n_way}
    options = overridden(EvaluateOptions(), given)
    model = SynBrain.from_pretrained(run, device=pick_device(device))
    scores = score(model, load_dataset(dataset), options, show_progress=True)
    print(terminal(scores))  # first: what was computed is seen even where nothing can be written
    if out is not None:
        scores.save(out, overwrite=overwrite)
        print(f"scores -> {out}")
    if run.is_dir():
        print(refresh_card(run, scores.to_json()))  # a run carries its last scores, and its card shows them
