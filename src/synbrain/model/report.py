"""What training says of a model: figures on training images that were held out of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SubjectReport(BaseModel):
    """One subject's figures; a figure that does not apply is None.

    Correlations are the mean over voxels of Pearson's r across images, against repeat means; errors are mean
    squared errors in the networks' scale. A model without networks holds no images out: its linear path is
    cross-validated on all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_validation_images: int = 0
    validation_r: float | None = Field(None, description="of the whole mean")
    validation_error: float | None = None
    validation_r_linear: float | None = Field(None, description="of the linear path alone")
    validation_error_linear: float | None = None
    cross_validated_r_linear: float | None = Field(None, description="without networks: over all images")
    shrink: float | None = Field(None, description="mean over voxels of the factor on the networks' part")


class TrainingReport(BaseModel):
    """``validation.json`` of a run.

    Attributes:
        subjects: name -> figures.
        steps_best_and_last: training stage -> (step whose weights were kept, last step).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subjects: dict[str, SubjectReport]
    steps_best_and_last: dict[str, tuple[int, int]] = {}
