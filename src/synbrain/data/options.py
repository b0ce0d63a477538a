"""What every reader of recordings can be told about pictures and gaps. Light to import: no numpy."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MissingTrials = Literal["drop", "drop-partial", "refuse"]
Orientation = Literal["upright", "stored"]
COLOURS = {"black": "#000000", "grey": "#808080", "gray": "#808080", "white": "#ffffff"}

MISSING_TRIALS: Any = Field(
    "drop",
    description="trials without any data are left out with a note (drop), those that lack values in some "
    "voxels too (drop-partial), or neither (refuse)",
)


class PictureOptions(BaseModel):
    """How pictures are decoded to RGB; a dataset records it, see :mod:`synbrain.data.pictures`.

    >>> PictureOptions(background="grey").background
    '#808080'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    background: str | None = Field(
        None,
        description="what transparent pixels were shown on: black, grey, white or #rrggbb; without it, "
        "transparent pictures are refused",
    )
    orientation: Orientation = Field(
        "upright",
        description="turn pictures as their orientation tag says, as viewers show them (upright), or "
        "take the pixels as they are stored",
    )

    @field_validator("background")
    @classmethod
    def _is_colour(cls, value: str | None) -> str | None:
        if value is None:
            return None
        colour = COLOURS.get(value.lower(), value.lower())
        if not re.fullmatch("#[0-9a-f]{6}", colour):
            raise ValueError("give black, grey, white or #rrggbb")
        return colour
