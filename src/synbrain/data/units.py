"""The units that responses can be scaled to. Light to import: no numpy."""

from __future__ import annotations

from typing import Literal

ScalingKind = Literal["percent", "session-zscore", "reference"]
AnyScaling = ScalingKind | Literal["none"]
UNITS: dict[ScalingKind, str] = {
    "percent": "percent signal change",
    "session-zscore": "z-score within session",
    "reference": "percent signal change x 0.15",
}
