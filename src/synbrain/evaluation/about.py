"""What a score table says about itself."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class About(BaseModel):
    """Data, sizes, target and seed of a score table; None where they are not known.

    Written flat into ``scores.json``; entries of later versions are kept as they are.

    Attributes:
        dataset, subject, unit: of the recordings.
        dataset_digest, run_digest: of the folders that were read.
        n_test_images, n_test_trials, n_train_images, n_train_trials: how many.
        n_fitted_images: those that the run was fitted on; the other rows are fitted on all training images.
        repeats: least and most trials of a test image.
        n_voxels: all of them.
        voxels_are: what they are called: voxels, vertices, grayordinates or units.
        n_constant_voxels: that never vary over the training trials.
        n_reliable_voxels: with a noise ceiling high enough for fractions of it.
        target: what trial scores are measured against.
        n_samples: synthetic trials an image.
        seed: of synthetic trials and controls.
        n_way, n_subsets: candidates in retrieval, and how often they are drawn.
        n_bootstrap: samples of test images behind intervals.
        encoder, layers: of the tokens.
        recipe: that the run was trained by.

    >>> About(dataset="me", n_voxels=12).to_json()
    {'dataset': 'me', 'n_voxels': 12}
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    dataset: str | None = None
    dataset_digest: str | None = None
    run_digest: str | None = None
    subject: str | None = None
    unit: str | None = None
    n_test_images: int | None = None
    n_test_trials: int | None = None
    n_train_images: int | None = None
    n_train_trials: int | None = None
    n_fitted_images: int | None = None
    repeats: list[int] | None = None
    n_voxels: int | None = None
    voxels_are: str | None = None
    n_constant_voxels: int | None = None
    n_reliable_voxels: int | None = None
    target: str | None = None
    n_samples: int | None = None
    seed: int | None = None
    n_way: int | None = None
    n_subsets: int | None = None
    n_bootstrap: int | None = None
    encoder: str | None = None
    layers: list[str] | None = None
    recipe: str | None = None

    def to_json(self) -> dict[str, object]:
        """What is known, as plain numbers and names."""
        return self.model_dump(mode="json", exclude_none=True)
