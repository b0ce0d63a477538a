"""Finished rows on disk: ``results/METHOD/seedK.{json,npz}``, written whole as each one finishes.

MLP systems leave their training curves in ``seedK.curves.json``.

The JSON carries values and a digest of everything the result depends on; the npz beside it holds
bootstrap replicates and per-voxel scores, from which intervals are made.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import synbrain
from synbrain.comparison.job import Job
from synbrain.errors import SynBrainError
from synbrain.evaluation.row import Row
from synbrain.files import MANIFEST, atomic_path, digest, digest_of, read_json, write_json

Curves = dict[str, list[dict[str, float]]]
PARTS = ("replicates", "per_voxel")


def result_path(out: Path, method: str, seed: int) -> Path:
    """Where the JSON of a finished row lies."""
    return out / "results" / method / f"seed{seed}.json"


def curves_path(result: Path) -> Path:
    """Where the training curves belonging to ``result``, the JSON of a row, lie."""
    return result.with_suffix(".curves.json")


def stored_curves(out: Path, methods: Iterable[str]) -> dict[str, dict[str, Curves]]:
    """Method -> "seedK" -> its curves, of those ``methods`` that have some.

    Curves are {"autoencoder": ..., "second": ...}, for each network one dict of figures per epoch.
    """
    curves: dict[str, dict[str, Curves]] = {}
    for method in methods:
        for path in sorted((out / "results" / method).glob("seed*.curves.json")):
            curves.setdefault(method, {})[path.name.split(".")[0]] = read_json(path)
    return curves


def identity_of(job: Job, method: Any) -> str:
    """Digest of all that a row depends on: data, tokens, method, seed, scoring, version of the package.

    Args:
        job: data, seed and scoring.
        method: what the method adds (its configuration).
    """
    manifest, measured = job.dataset.path / MANIFEST, job.measured
    shape = list(measured.test.responses.shape)
    return digest_of(
        {
            "version": synbrain.__version__,
            "data": read_json(manifest) if manifest.exists() else shape,
            "tokens": [job.tokens.content, list(job.tokens.layers)],
            "method": method,
            "seed": job.seed,
            "scoring": [job.options.samples, measured.seed, measured.n_bootstrap],
        }
    )


def save_result(path: Path, row: Row, *, identity: str, seconds: float, seed: int) -> None:
    """Write a row; the JSON comes last, so that it stands only beside whole arrays."""
    arrays = {
        f"{part}.{name}": np.asarray(values) for part in PARTS for name, values in getattr(row, part).items()
    }
    beside = path.with_suffix(".npz")
    path.unlink(missing_ok=True)
    with atomic_path(beside) as partial, partial.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
    content = {
        "identity": identity,
        "seed": seed,
        "seconds": seconds,
        "arrays": digest(beside),
        "values": {name: finite(value) for name, value in row.values.items()},
        "rois": {
            roi: {name: finite(value) for name, value in entry.items()} for roi, entry in row.rois.items()
        },
        "notes": row.notes,
    }
    write_json(path, content)


def load_result(path: Path, identity: str) -> tuple[Row, float] | None:
    """(row, seconds that it took); None where there is none, it is damaged, or it is of another identity."""
    try:
        content = read_json(path)
        if content["identity"] != identity or digest(path.with_suffix(".npz")) != content["arrays"]:
            return None
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (SynBrainError, OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return None  # made again, which is what its reader would be told to do
    row = Row(values=content["values"], rois=content["rois"], notes=content["notes"])
    for key, values in arrays.items():
        part, name = key.split(".", 1)
        of_part: dict[str, NDArray[Any]] = getattr(row, part)
        of_part[name] = values
    return row, float(content["seconds"])


def finite(value: float | None) -> float | None:
    """The value as JSON can hold it; None for NaN and infinities."""
    if value is None or not np.isfinite(value):
        return None
    return value if isinstance(value, int) else float(value)
