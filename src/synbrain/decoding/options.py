"""What a user may say about decoders: their training, their scores, and what they are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from synbrain.data.budget import By
from synbrain.decoding.choice import Rule
from synbrain.metrics.retrieval import N_SUBSETS, N_WAY
from synbrain.networks.config import LoopConfig

OFFLINE = ("lite2",)  # networks that judge pictures and come with the package
Arm = Literal["calibrated", "expected", "isotropic", "ridge_gaussian", "real", "repeated"]


class PriorSizes(BaseModel):
    """Sizes of the diffusion prior; the published ones are depth 6, 32 heads of 52, 100 steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    depth: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    dim_head: int = Field(16, ge=2)
    steps: int = Field(100, ge=2, description="of the noise schedule")
    drop: float = Field(0.2, ge=0, lt=1, description="chance that a condition is left out in training")
    residual: bool = Field(
        True, description="the prior predicts what the brain's tokens lack; published: false, all of them"
    )
    sample_steps: int = Field(20, ge=2, description="steps visited when sampling")
    guidance: float = Field(1.0, ge=0, description="of classifier-free guidance; 1: off, as published")


class MindEye2Sizes(BaseModel):
    """Sizes of the network but for the voxels, which are one subject's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hidden: int = Field(256, ge=1)
    blocks: int = Field(2, ge=0)
    # The published mixer blocks do nothing at a sequence length of 1, so that backbone is affine in effect.
    backbone: Literal["residual", "linear", "published"] = Field(
        "residual", description="residual MLP, linear (what the published comes to), or published"
    )
    dropout: float = Field(0.15, ge=0, lt=1)
    use_prior: bool = Field(True, description="false: the backbone is the prediction")
    prior: PriorSizes = Field(PriorSizes(), description="sizes of the diffusion prior")


class MindEye2Loss(BaseModel):
    """Weights and quirks of the loss; a quirk is a bug of the published code, off by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    contrastive_weight: float = Field(1.0, ge=0)
    prior_weight: float = Field(30.0, ge=0)
    backbone_weight: float = Field(0.0, ge=0, description="of the squared error of the backbone itself")
    mixco_share: float = Field(0.33, ge=0, le=1, description="of the steps, with BiMixCo; SoftCLIP after")
    # Published: .006, and .004 to .0075, for raw tokens whose cosines are all near 1. Ours are centred; .1
    # was chosen on validation images (60 of the demo's subject: top-1 .47 against .35).
    mixco_temperature: float = Field(0.1, gt=0, description="of BiMixCo; .006 published, for raw tokens")
    soft_start: float = Field(0.1, gt=0, description="of SoftCLIP in its first round; .004 published")
    soft_end: float = Field(0.1, gt=0, description="and in its last, along a cosine; .0075 published")
    # Quirk: the target of a fixed point is 1 - beta, which is 0 where it was not selected (mixco_nce).
    quirk_fixed_points: bool = Field(False, description="targets of fixed points as published")


class MindEye2Options(LoopConfig):
    """How a MindEye2 decoder is trained."""

    sizes: MindEye2Sizes = Field(MindEye2Sizes(), description="of the network")
    loss: MindEye2Loss = Field(MindEye2Loss(), description="weights and schedules")
    steps: int = Field(500, ge=1, description="at most; early stopping on validation images may end before")
    round_steps: int = Field(50, ge=1, description="steps between looks at the validation images")
    lr: float = Field(1e-3, gt=0, description="learning rate of AdamW")
    weight_decay: float = Field(1e-2, ge=0)
    batch_size: int = Field(128, ge=2, description="trials a step, of one subject")
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = Field(20, ge=0)


class DecoderOptions(BaseModel):
    """How :func:`synbrain.decoding.train.train_decoder` trains.

    Example:
        >>> DecoderOptions(method="ridge", budget="1h").grid
        3
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field("mindeye2", description="mindeye2, ridge, nearest, shuffled or mean")
    encoder: str = Field("efficientnet-lite0", description="whose tokens are decoded")
    layer: str | None = Field(None, description="token layer; the last that was made if left out")
    grid: int = Field(3, ge=0, description="side that the grid of tokens is pooled to; 0: every token")
    components: int = Field(64, ge=0, description="principal components of the tokens; 0: all")
    budget: int | str = Field("all", description="1h, a number or all; validation images come out of it")
    by: By = Field("session", description="what a number counts: first sessions, or images")
    budget_seed: int | None = Field(None, ge=0, description="draw the images of a budget by images")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="of the training images, for stopping")
    synthetic_weight: float = Field(
        0.5, ge=0, lt=1, description="share of a batch that is synthetic, where --augment is given"
    )
    shared_test_images: Literal["refuse", "drop"] = Field(
        "refuse", description="what to do about training images that are test images of another dataset"
    )
    refit: bool = Field(
        False,
        description="train once more on all images, the held-out ones too, for the steps that they chose",
    )
    seed: int = Field(0, ge=0, description="of weights, batches, noise and the held-out images")
    device: str = Field("auto", description="where networks are trained: auto, cpu, cuda or mps")
    mindeye2: MindEye2Options = Field(MindEye2Options(), description="sizes, losses and steps of mindeye2")


class DecoderAdaptOptions(DecoderOptions):
    """How a decoder is adapted; token space and sizes are the base's."""

    adaptation: Literal["finetune", "mindaligner"] = Field(
        "finetune", description="a new first layer and further training, or two layers into a known subject"
    )
    known: str | None = Field(None, description="mindaligner: the known subject; the first if left out")
    latent: int = Field(256, ge=1, description="mindaligner: width between its two layers (4096 published)")
    alignment_weight: float = Field(
        1.0, ge=0, description="mindaligner: of the loss on pairs of trials, where --known-data is given"
    )
    labels: Path | None = Field(
        None, description="CSV of image and label: pairs are of one label; token neighbours if left out"
    )
    neighbours: int = Field(10, ge=1, description="images of the known subject that may be an image's pair")


class DecoderEvaluation(BaseModel):
    """How a decoder is evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    samples: int = Field(1, ge=1, description="token samples of the prior, averaged before scoring")
    n_way: int | None = Field(
        None,
        ge=2,
        description=f"candidates in retrieval; {N_WAY}, or all images where they are fewer, if left out",
    )
    n_subsets: int = Field(N_SUBSETS, ge=1, description="random draws of candidates")
    seed: int = Field(0, ge=0, description="of synthetic trials, samples and draws")
    subject: str | None = Field(
        None, description="of a run with several subjects; the dataset's own where left out"
    )
    renderer: str | None = Field(
        None, description="score pictures too: pixels, nearest, or the path of an unCLIP checkpoint"
    )
    networks: list[str] = Field(
        list(OFFLINE), description="that pictures are judged by: lite2, alexnet, inception, clip, ..."
    )
    device: str = Field("auto", description="where decoder and run work: auto, cpu, cuda, ...")


class AugmentOptions(BaseModel):
    """What synthetic trials are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hours: float = Field(1.0, gt=0, description="of 750 trials each, as one NSD session")
    per_image: int = Field(1, ge=1, description="trials an image; images are used again where they run out")
    kind: Literal["trial", "mean", "isotropic"] = Field(
        "trial", description="with the run's noise, the expected response, or with isotropic noise"
    )
    subject: str | None = Field(None, description="of a run with several subjects")
    seed: int = Field(0, ge=0, description="of images and noise")


class DecoderComparison(DecoderAdaptOptions):
    """Which decoders are compared, beside the settings of each."""

    budget: int | str = Field("1h", description="real data of every decoder but `full`")
    systems: list[str] = Field(
        ["ridge", "mindeye2", "mindaligner", "mindeye2_da", "full", "full_ridge", "repeats"],
        description="mindeye2_da adds synthetic hours, full and full_ridge take all data, repeats identify "
        "one another",
    )
    hours: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0], min_length=1, description="synthetic hours of mindeye2_da, a row each"
    )
    seeds: int = Field(3, ge=1, description="number of repetitions")
    resume: bool = Field(
        False,
        description="extend a finished table by systems, hours or seeds; its decoders are taken as they are",
    )


class CurveOptions(DecoderAdaptOptions):
    """The arms of the experiment, beside the settings of each decoder."""

    budget: int | str = Field("1h", description="real data of every decoder but those of the arm `real`")
    hours: list[float] = Field([0, 1, 2, 4, 8, 16, 32], description="synthetic hours of 750 trials")
    arms: list[Arm] = Field(
        ["calibrated", "expected", "isotropic", "ridge_gaussian", "real", "repeated"],
        description="calibrated trials, expected responses, isotropic noise, ridge with Gaussian residuals, "
        "as many further real hours, the real trials repeated",
    )
    weights: list[float] = Field(
        [0, 0.25, 0.5, 0.75],
        description="shares of synthetic samples tried; validation images choose, 0 is the decoder without",
    )
    rule: Rule = Field(
        "one_se",
        description="how they choose: the best mean, where its gain over the decoder without is larger than "
        "its standard error over images; or the best mean alone",
    )
    steps_grow: bool = Field(
        False, description="steps grow with the hours, as published: more training and more data confounded"
    )
    seeds: int = Field(3, ge=1, description="number of repetitions of the experiment")
    resume: bool = Field(
        False,
        description="extend a finished curve by arms, hours or seeds; its decoders are taken as they are",
    )
