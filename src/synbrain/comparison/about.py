"""What the table of a comparison says about itself."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from synbrain.evaluation.about import About


class ComparisonAbout(About):
    """Data and sizes as for one model, and how methods were fitted and compared.

    Attributes:
        command: that makes the table again.
        preset, changes: sizes of the networks, and settings that differ from them.
        seeds, seeds_of: of the comparison, and those of each method that were fitted.
        seconds: method -> time of its fits.
        against: the row that all others are compared with.
        methods, groups: method -> what it is in one line, and its group.
        skipped: method -> why it was left out.
        over_seeds: method -> metric -> interval over seeds.
        differences_from_ridge_gaussian, differences_from_base: method -> metric -> paired difference from
            ridge with Gaussian residuals, and of an ablation from what it changes.
    """

    command: str | None = None
    preset: str | None = None
    changes: dict[str, Any] = Field(default_factory=dict)
    seeds: list[int] = Field(default_factory=lambda: [0])
    seeds_of: dict[str, list[int]] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    against: str = "ridge"
    methods: dict[str, str] = Field(default_factory=dict)
    groups: dict[str, str] = Field(default_factory=dict)
    skipped: dict[str, str] = Field(default_factory=dict)
    over_seeds: dict[str, Any] = Field(default_factory=dict)
    differences_from_ridge_gaussian: dict[str, dict[str, Any]] = Field(default_factory=dict)
    differences_from_base: dict[str, dict[str, Any]] = Field(default_factory=dict)
