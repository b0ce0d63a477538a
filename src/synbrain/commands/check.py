"""``synbrain check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synbrain.arrays import Float32, Rows
    from synbrain.check.report import CheckReport
    from synbrain.data.dataset import Dataset

MARKS = {"ok": "ok", "fault": "WRONG", "not tested": "-"}


def check(
    datasets: list[Dataset],
    *,
    encoder: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> int:
    """Find data that is out of step: labels, sessions, units, copies. Exit code 1 where something is wrong.

    Args:
        datasets: dataset folders; several are also compared with each other.
        encoder: whose stored tokens to use; the first stored ones, or plain image statistics, if left out.
        out: write all numbers to this JSON file.
        seed: of the permutations.
        overwrite: replace the JSON file.
    """
    from synbrain.check.between import check_between
    from synbrain.check.report import check_dataset
    from synbrain.describe import counted
    from synbrain.files import require_absent, write_json

    if out is not None:
        require_absent(out, overwrite)
    reports: list[CheckReport] = []
    for dataset in datasets:
        features, name, families = image_features(dataset, encoder)
        reports.append(check_dataset(dataset, features, name, families=families, seed=seed))
        print(_screen(reports[-1], str(dataset.path)))
    if len(datasets) > 1:
        reports.append(check_between(datasets, show_progress=True))
        print(_screen(reports[-1], reports[-1].name))
    n_faults = sum(len(report.faults) for report in reports)
    untested = sum(line.status == "not tested" for report in reports for line in report.lines)
    also = f"; {counted(untested, 'test was', 'tests were')} not possible" if untested else ""
    print((f"{n_faults} finding{'s' if n_faults != 1 else ''}" if n_faults else "nothing found") + also)
    if out is not None:
        content = [
            report.as_json() | {"path": str(dataset.path)}
            for report, dataset in zip(reports, datasets, strict=False)
        ]
        between = reports[-1].as_json() if len(datasets) > 1 else None
        write_json(out, {"faults": n_faults, "datasets": content, "between": between})
    return 1 if n_faults else 0


def image_features(
    dataset: Dataset, encoder: str | None, show_progress: bool = True
) -> tuple[Float32 | None, str, Rows | None]:
    """Features of the dataset's images for the checks, what they are, and families of images that look alike.

    Tokens of an encoder that was tuned on the dataset are not taken: it learned labels that are out of step.

    Raises:
        SynBrainError: where tokens of ``encoder`` were asked for and are missing or damaged, or it was tuned
            on the dataset.
    """
    from synbrain.check.images import image_statistics, summarise_tokens
    from synbrain.errors import SynBrainError
    from synbrain.features.store import open_tokens, stored_encoders, verify_tokens

    known = [encoder] if encoder is not None else stored_encoders(dataset)
    for name in known:
        tokens = open_tokens(dataset, name)
        if not tokens.is_tuned.any():
            verify_tokens(dataset, name)
            layer = list(tokens.layers)[-1]
            features = summarise_tokens(tokens.layers[layer], tokens.rows, show_progress=show_progress)
            return features, name, tokens.families
    if encoder is not None:
        raise SynBrainError(
            f"{encoder} was tuned on {dataset.info.name}, and would predict its responses under wrong labels",
            "give an encoder that was not tuned on it, or leave --encoder out",
        )
    lacking = "tokens of an encoder that was not tuned on this dataset" if known else "tokens"
    try:
        return image_statistics(dataset, show_progress), f"plain statistics, as no {lacking} are stored", None
    except SynBrainError:
        return None, "", None


def _screen(report: CheckReport, title: str) -> str:
    rows = [f"  {MARKS[line.status]:<6}{line.check:<20} {line.text}" for line in report.lines]
    return "\n".join([title, *rows])
