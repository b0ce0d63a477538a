"""Scores of a model and its control rows on one dataset, with intervals, ceilings and targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from synbrain.describe import as_html, as_text
from synbrain.errors import SynBrainError
from synbrain.evaluation.about import About
from synbrain.evaluation.row import TARGETS, Row
from synbrain.files import read_json, require_absent, write_json
from synbrain.metrics.intervals import Interval


@dataclass(frozen=True)
class Score:
    """One number that says what it was measured against.

    Attributes:
        value: None where the metric does not apply.
        interval: 95 % bootstrap interval over test images, where there is one.
        ceiling: what the noise ceiling's row has for the metric, where known.
        target: "trial", "repeat_mean" or "trial_variance".
        note: why the value is missing, or how to read it.
    """

    value: float | None
    interval: Interval | None = None
    ceiling: float | None = None
    target: str = "trial"
    note: str = ""


@dataclass(frozen=True, repr=False)
class Scores:
    """A score table.

    Attributes:
        rows: row ("synbrain", "mean_map", "ridge", "ceiling", "oracle", ...) -> metric -> score.
        rois: row -> ROI -> metric -> value.
        about: data, sizes, target and seed.
        differences: row -> metric -> paired difference against ridge: difference, interval, p, p_holm.

    >>> score = Score(value=0.5, interval=(0.4, 0.6), ceiling=0.8, target="repeat_mean")
    >>> scores = Scores({"synbrain": {"voxel_r": score}})
    >>> scores["synbrain"]["voxel_r"].interval, scores.value("synbrain", "crps") is None
    ((0.4, 0.6), True)
    """

    rows: dict[str, dict[str, Score]]
    rois: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    about: About = field(default_factory=About)
    differences: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: dict[str, Row], about: About, differences: dict[str, Any] | None = None) -> Self:
        """Put scored rows together; the row "ceiling", if any, gives every score its ceiling."""
        top = rows["ceiling"].values if "ceiling" in rows else {}
        table = {
            name: {
                metric: Score(
                    value=_finite(row.values[metric]),
                    interval=row.interval(metric),
                    ceiling=_finite(top.get(metric)),
                    target=target,
                    note=row.notes.get(metric, ""),
                )
                for metric, target in TARGETS.items()
                if metric in row.values
            }
            for name, row in rows.items()
        }
        rois = {
            name: {
                roi: {metric: _finite(value) for metric, value in entry.items()}
                for roi, entry in row.rois.items()
            }
            for name, row in rows.items()
            if row.rois
        }
        return cls(table, rois, about, differences or {})

    def __getitem__(self, row: str) -> dict[str, Score]:
        return self.rows[row]

    def value(self, row: str, metric: str) -> float | None:
        """The value of one metric of one row; None where it does not apply.

        Raises:
            SynBrainError: for a row that the table has not got, or a metric that there is not.
        """
        for name, known in ((row, self.rows), (metric, TARGETS)):
            if name not in known:
                raise SynBrainError(f"the scores have no {name!r}", f"choose among {', '.join(known)}")
        score = self.rows[row].get(metric)
        return None if score is None else score.value

    def to_dataframe(self, rois: bool = False) -> pd.DataFrame:
        """The table in long form, for pandas and seaborn.

        Args:
            rois: one line a row, ROI and metric instead of one a row and metric.

        Returns:
            columns row, metric, value, low, high (95 % interval), ceiling, target, difference, p_holm
            (against ridge), note; with ``rois`` row, roi, metric, value.
        """
        if rois:
            lines: list[dict[str, Any]] = [
                {"row": name, "roi": roi, "metric": metric, "value": value}
                for name, table in self.rois.items()
                for roi, values in table.items()
                for metric, value in values.items()
            ]
            return pd.DataFrame(lines, columns=["row", "roi", "metric", "value"])
        lines = []
        for name, row in self.rows.items():
            for metric, score in row.items():
                low, high = score.interval or (None, None)
                paired = self.differences.get(name, {}).get(metric, {})
                lines.append(
                    {"row": name, "metric": metric, "value": score.value, "low": low, "high": high}
                    | {"ceiling": score.ceiling, "target": score.target}
                    | {"difference": paired.get("difference"), "p_holm": paired.get("p_holm")}
                    | {"note": score.note}
                )
        numbers = ["value", "low", "high", "ceiling", "difference", "p_holm"]
        return pd.DataFrame(lines).astype(dict.fromkeys(numbers, float))

    def _facts(self) -> dict[str, Any]:
        about = self.about
        facts: dict[str, Any] = {"dataset": about.dataset, "test images": about.n_test_images}
        for name, row in self.rows.items():
            if (score := row.get("voxel_r")) is not None and score.value is not None:
                low_high = "" if score.interval is None else " [{:.3f}, {:.3f}]".format(*score.interval)
                facts[f"voxel r of {name}"] = f"{score.value:.3f}{low_high}"
        return facts

    def __repr__(self) -> str:
        return as_text("Scores", self._facts())

    def _repr_html_(self) -> str:
        return as_html("Scores", self._facts())

    def to_json(self) -> dict[str, Any]:
        """JSON-able content of ``scores.json``; missing values are null, NaN is never written."""
        intervals = {
            name: {m: list(s.interval) for m, s in row.items() if s.interval is not None}
            for name, row in self.rows.items()
        }
        return {
            **self.about.to_json(),
            "targets": {m: t for m, t in TARGETS.items() if any(m in row for row in self.rows.values())},
            "scores": {name: {m: s.value for m, s in row.items()} for name, row in self.rows.items()},
            "intervals": {name: entry for name, entry in intervals.items() if entry},
            "differences": self.differences,
            "rois": self.rois,
            "notes": {
                name: notes
                for name, row in self.rows.items()
                if (notes := {m: s.note for m, s in row.items() if s.note})
            },
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write :meth:`to_json` to ``path``, whole or not at all.

        Raises:
            SynBrainError: where ``path`` exists and ``overwrite`` is not set.
        """
        require_absent(Path(path), overwrite)
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote."""
        content = read_json(Path(path))
        try:
            scores, intervals, targets = (
                content.pop("scores"),
                content.pop("intervals"),
                content.pop("targets"),
            )
            notes, rois, differences = content.pop("notes"), content.pop("rois"), content.pop("differences")
        except (KeyError, AttributeError, TypeError) as error:
            raise SynBrainError(f"{path} holds no scores ({error})", "run `synbrain evaluate`") from error
        top = scores.get("ceiling", {})
        rows = {
            name: {
                metric: Score(
                    value,
                    tuple(entry) if (entry := intervals.get(name, {}).get(metric)) else None,
                    top.get(metric),
                    targets[metric],
                    notes.get(name, {}).get(metric, ""),
                )
                for metric, value in row.items()
            }
            for name, row in scores.items()
        }
        return cls(rows, rois, About(**content), differences)


def _finite(value: float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return value if isinstance(value, int) else float(value)
