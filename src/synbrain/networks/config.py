"""Settings of the two stages of training: batches, steps, rates, losses and when to stop. No torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class VAELossConfig(BaseModel):
    """Weights and reductions of the BrainVAE loss; the defaults are the published ones.

    Attributes:
        kl_weight: of the divergence summed over the latent.
        clip_weight: of the contrastive loss; 0 leaves it out.
        temperature: of the contrastive loss.
        reconstruction: "sum" of squared errors over voxels, or "mean" per voxel.
        contrast_on: latents that the contrastive loss sees: the drawn ones or the posterior means.
        contrast_batch: "replica" contrasts within each of ``replicas`` parts of the batch and within a
            process; "gathered" contrasts over the batch of all processes.
        replicas: parts that the batch of a process is cut into for "replica".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kl_weight: float = Field(1e-3, ge=0)
    clip_weight: float = Field(1000.0, ge=0)
    temperature: float = Field(0.125, gt=0, description="of SoftCLIP")
    # Quirk: summed over voxels, so that its weight grows with the number of voxels
    # (mse_loss in src/vae/brainvae.py; the paper writes a squared norm).
    reconstruction: Literal["sum", "mean"] = "sum"
    # Quirk: the contrastive loss sees the noisy z (forward in src/vae/brainvae.py).
    contrast_on: Literal["sample", "mean"] = "sample"
    # Quirk: DataParallel over 2 GPUs contrasts 12 by 12, not 24 by 24 (src/vae/train_vae.py).
    contrast_batch: Literal["replica", "gathered"] = "replica"
    replicas: int = Field(2, gt=0)


class LoopConfig(BaseModel):
    """What every stage's loop can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(1e-4, gt=0, description="learning rate of AdamW")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW")
    eps: float = Field(1e-8, gt=0, description="of AdamW")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW")
    optimizer: Literal["fused", "plain"] = Field("fused", description="AdamW implementation; same update")
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up of the learning rate")
    clip_grad: float = Field(0.0, ge=0, description="largest gradient norm; 0: no clipping")
    batch_size: int = Field(24, ge=1, description="samples a step over all processes together")
    precision: Precision = Field(
        "auto",
        description="autocast; auto: bf16 for wide networks on a CPU with bf16 instructions, else fp32 "
        "(other CPUs emulate bf16 and fp16, slowly)",
    )
    compile: bool = Field(False, description="torch.compile the stage")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="of the average of the weights; 0: none")
    ema_warmup: bool = Field(True, description="let the average follow a young run: min(decay, (1+t)/(10+t))")
    stop: Literal["validation", "train_threshold", "never"] = Field(
        "validation", description="what ends the stage before its last step"
    )
    patience: int = Field(5, ge=1, description="rounds without improvement on validation images")
    min_improvement: float = Field(1e-4, ge=0, description="relative; less counts as none")
    stop_threshold: float = Field(350.0, description="train_threshold: squared error per trial to fall below")
    keep_stopping_round: bool = Field(
        True, description="train_threshold: keep the weights of the round that ended the stage"
    )
    log_every: int = Field(20, ge=1, description="steps between rows of log.jsonl")
    checkpoint_every: int = Field(0, ge=0, description="steps between checkpoints; 0: by the clock only")
    checkpoint_minutes: float = Field(10.0, gt=0, description="between checkpoints")


class VAEStageConfig(LoopConfig):
    """Stage 1: BrainVAE on single trials."""

    epochs: int = Field(15, ge=1, description="passes over the training trials at most")
    responses: Literal["trials", "image_mean"] = Field(
        "trials", description="samples: single trials, or the mean of each image's trials"
    )
    sampling: bool = Field(
        True, description="decode drawn latents; without: posterior means (an autoencoder)"
    )
    loss: VAELossConfig = Field(VAELossConfig(), description="weights and reductions of the loss")


class MapperStageConfig(LoopConfig):
    """Stage 2: the mapper from tokens to latents."""

    steps: int = Field(50_001, ge=1, description="at most; early stopping may end before")
    round_steps: int = Field(1000, ge=1, description="steps between looks at the validation images")
    targets: Literal["image", "trial", "reencode"] = Field(
        "image",
        description="latent targets: averaged once over each image's trials, once for each trial, "
        "or encoded again in every step",
    )
    target: Literal["mean", "sample"] = Field(
        "mean", description="posterior mean, or a sample of it (reencode only)"
    )
    latent_weight: float = Field(1.0, ge=0, description="of the squared error in latent space")
    response_weight: float = Field(0.0, ge=0, description="of the squared error per voxel after the decoder")
    contrastive_weight: float = Field(0.0, ge=0, description="of SoftCLIP between mapped latents and targets")
    temperature: float = Field(0.125, gt=0, description="of SoftCLIP")
    decoder: Literal["frozen", "finetune"] = Field("frozen", description="train the decoder along")
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of token values set to zero in training")
    token_noise: float = Field(0.0, ge=0, description="sd of noise added to tokens, in sd of the batch")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.target == "sample" and self.targets != "reencode":
            raise ValueError("target='sample' needs targets='reencode': stored targets are posterior means")
        if self.decoder == "finetune" and not self.response_weight:
            raise ValueError("decoder='finetune' needs a response_weight above 0")
        if not (self.latent_weight or self.response_weight or self.contrastive_weight):
            raise ValueError(
                "latent_weight, response_weight and contrastive_weight are all 0: no loss is left"
            )
        return self
