"""How the linear path is fitted."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LinearPathConfig(BaseModel):
    """How the linear path is fitted; nothing here looks at test images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    layers: tuple[str, ...] | None = Field(None, description="token layers; none: all that the tokens hold")
    side: int = Field(7, ge=1, description="rows of the grid that layers are brought to")
    blur: float = Field(0.085, ge=0, description="sd of the blur over positions, share of the image's width")
    windows: int | None = Field(
        None, ge=0, description="windows a side; 0: none; none: 5 up to 600 images, else 3"
    )
    window_sd: float = Field(0.12, gt=0, description="sd of the windows, share of the image's width")
    alphas: tuple[float, ...] = Field(
        (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
        min_length=1,
        description="ridge penalties to choose from, for kernels of mean diagonal 1",
    )
    n_folds: int = Field(
        10, ge=2, description="folds by image; fewer where images are fewer or many look alike"
    )
    temper: float = Field(0.25, gt=0, description="exponent on the pseudo-likelihood of a candidate")
    keep: int = Field(8, ge=1, description="candidates that a voxel averages at most")
    select_images: int = Field(800, ge=10, description="images on which candidates are compared at most")
    share: bool = Field(True, description="share among voxels through the patterns of their predictions")
    components: int = Field(
        40, ge=0, description="response patterns that are fitted as responses of their own; 0: none"
    )
    rank: int = Field(
        256,
        ge=1,
        description="patterns that are shared at most, each with a gain of its own",
    )
    rest: int = Field(
        768,
        ge=0,
        description="directions of what the patterns leave over that are kept at most, with one gain for "
        "all. Patterns, these and components are the rank of the stored map, of which a sum of several maps "
        "may need more",
    )
    dtype: str = Field("float16", pattern="^float(16|32)$", description="of the stored projections")
