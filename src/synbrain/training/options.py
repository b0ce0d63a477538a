"""What a user may say about a training: every value is None, "as the recipe has it", unless given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from synbrain.data.budget import By
from synbrain.linear.config import LinearPathConfig
from synbrain.networks.config import MapperStageConfig, VAEStageConfig
from synbrain.noise.config import NoiseConfig
from synbrain.training.config import TrainConfig
from synbrain.training.overrides import options_of, overridden
from synbrain.training.recipes import recipe

Update = Literal["mlp", "attention", "all", "none"]
SharedTestImages = Literal["refuse", "drop"]

if TYPE_CHECKING:  # to a type checker the options of a part are its configuration: the same names and types
    LinearOptions = LinearPathConfig
    NoiseOptions = NoiseConfig
    VAEOptions = VAEStageConfig
    MapperOptions = MapperStageConfig
else:
    LinearOptions, NoiseOptions = options_of(LinearPathConfig), options_of(NoiseConfig)
    VAEOptions, MapperOptions = options_of(VAEStageConfig), options_of(MapperStageConfig)


class FitOptions(BaseModel):
    """Values of a training configuration that differ from its recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Literal["standardise", "raw"] | None = Field(
        None, description="standardise responses, or take them as they are"
    )
    validation_fraction: float | None = Field(
        None, description="of the training images, held out for early stopping"
    )
    leave_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training images that the run does not see, so that decoders with its "
        "synthetic trials can be chosen by them",
    )
    networks: bool = Field(
        True, description="false: linear path and noise alone; seconds, and often as good on few images"
    )
    linear_path: bool | None = Field(None, description="whether the mean has a linear path")
    response_noise: bool | None = Field(None, description="whether trial noise is fitted")
    shrink: Literal["none", "subject", "voxel"] | None = Field(
        None, description="one factor on the networks' part per subject, one per voxel, or none"
    )
    linear: LinearOptions = Field(LinearOptions(), description="settings of the linear path")
    noise: NoiseOptions = Field(NoiseOptions(), description="settings of the trial noise")
    vae: VAEOptions = Field(VAEOptions(), description="settings of stage 1")
    mapper: MapperOptions = Field(MapperOptions(), description="settings of stage 2")
    seed: int = Field(0, description="of weights, batches, noise, folds and the held-out images")
    device: str = Field("auto", description="where everything is fitted: auto, cpu, cuda or mps")

    def applied_to(self, config: TrainConfig) -> TrainConfig:
        """``config`` with the values that were given in place of its own.

        Raises:
            SynBrainError: naming the option whose value is refused.
        """
        shared = TrainConfig.model_fields.keys() & type(self).model_fields.keys()
        return overridden(config, {name: getattr(self, name) for name in shared})


class TrainOptions(FitOptions):
    """How :func:`synbrain.train` trains.

    >>> TrainOptions(vae=VAEOptions(lr=1e-3), seed=1).config().vae.lr
    0.001
    """

    recipe: Literal["calibrated", "reference"] = Field(
        "calibrated",
        description="`calibrated` (a linear path, networks and noise) or `reference` (as published)",
    )
    preset: str | None = Field(
        None,
        description="sizes of the networks: tiny, small, paper-1024, paper-2048 or paper-4096; the recipe's "
        "if left out",
    )
    encoder: str = Field(
        "efficientnet-lite0", description="whose tokens to train on; A+B reads those of both"
    )
    layers: list[str] | None = Field(None, description="token layers to use; all that were made if left out")
    network_layer: str | None = Field(
        None, description="the layer that the networks read; the last if left out"
    )
    subject_weights: dict[str, float] | None = Field(
        None, description='how often each subject is drawn, as {"name": weight}; by trials if left out'
    )
    shared_test_images: SharedTestImages = Field(
        "refuse", description="what to do about training images that are test images of another dataset"
    )
    tensorboard: bool = Field(False, description="also write metrics for TensorBoard")

    def config(self) -> TrainConfig:
        """The complete configuration: the recipe at these sizes, with what was given in its place."""
        return self.applied_to(recipe(self.recipe, preset=self.preset))


class AdaptOptions(FitOptions):
    """How :func:`synbrain.adapt` adapts; values that are not given are the base's, on a shorter schedule.

    >>> AdaptOptions(budget=25, by="images", networks=False).update
    'mlp'
    """

    budget: int | str = Field("1h", description="1h, a number or all; validation images come out of it")
    by: By = Field(
        "session", description="what a number counts: first sessions as scanned, or images with all repeats"
    )
    budget_seed: int | None = Field(
        None, ge=0, description="draw the images of a budget by images; the first that were shown if left out"
    )
    update: Update = Field(
        "mlp", description="what of the mapper is trained further (the VAE is, whole); mlp as published"
    )
    layers: list[str] | None = Field(
        None, description="token layers that the linear path reads beside the base's"
    )
    prior: bool = Field(True, description="false: linear path and noise without the base's (a control)")
    shared_test_images: SharedTestImages = Field(
        "refuse", description="what to do about training images that are test images of a base subject"
    )
