"""Training losses, each with its reduction stated, and the quirks of the published ones as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from synbrain.networks.config import VAELossConfig
from synbrain.networks.posterior import Posterior, without_autocast


@dataclass(frozen=True)
class VAELosses:
    """Scalars of one batch; ``total`` is the weighted sum that is minimised."""

    reconstruction: Tensor
    kl: Tensor
    soft_clip: Tensor
    total: Tensor


def vae_losses(
    recon: Tensor, y: Tensor, posterior: Posterior, z: Tensor, tokens: Tensor, config: VAELossConfig
) -> VAELosses:
    """All terms of the BrainVAE loss (equation 1 of the paper).

    Args:
        recon, y: (batch, n_voxels).
        posterior: of ``y``.
        z: (batch, tokens, dim), the latents that were decoded.
        tokens: (batch, n_tokens, token_dim) image tokens; see :func:`contrastive_target` where their
            shape is not the latent's.
        config: weights and reductions.
    """
    rec = reconstruction(recon, y, config.reconstruction)
    divergence = kl(posterior)
    clip = torch.zeros((), device=y.device)
    if config.clip_weight:
        gathered = config.contrast_batch == "gathered"
        seen = z if config.contrast_on == "sample" else posterior.mean
        clip = soft_clip(
            seen, tokens, config.temperature, replicas=1 if gathered else config.replicas, gathered=gathered
        )
    total = rec + config.kl_weight * divergence + config.clip_weight * clip
    return VAELosses(rec, divergence, clip, total)


def reconstruction(recon: Tensor, y: Tensor, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """Squared error, float32 scalar.

    "sum": summed over voxels, mean over the batch (published). "mean": mean over voxels and batch, which
    does not grow with the number of voxels. ``recon``, ``y``: (batch, n_voxels).
    """
    squared = (recon.float() - y.float()).square()
    return squared.sum() / len(y) if reduction == "sum" else squared.mean()


def kl(posterior: Posterior) -> Tensor:
    """Divergence from N(0, I), float32 scalar: summed over the latent, mean over the batch."""
    return posterior.kl().mean()


def soft_clip(
    z: Tensor, tokens: Tensor, temperature: float = 0.125, *, replicas: int = 1, gathered: bool = False
) -> Tensor:
    """SoftCLIP (Scotti et al. 2023, MindEye) between flattened latents and image tokens, float32 scalar.

    Cross-entropy of the latent-to-image similarities against the image-to-image ones, averaged over both
    directions and over the batch; with ``replicas`` parts, mean over the parts' losses.

    Args:
        z: (batch, tokens, dim).
        tokens: (batch, ...) with as many values per sample as ``z``.
        temperature: divides the cosines.
        replicas: contrast within each of so many parts of the batch, as DataParallel cuts it.
        gathered: contrast over the batches of all processes, differentiably; gradients are those of the
            global loss once data-parallel training averages them over processes.
    """
    with without_autocast(z):
        a = F.normalize(z.flatten(1).float(), dim=-1)
        b = F.normalize(tokens.flatten(1).float(), dim=-1)
        if gathered and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            a, b = torch.cat(all_gather(a)), torch.cat(all_gather(b))
        parts = min(replicas, len(a))
        pairs = zip(a.chunk(parts), b.chunk(parts), strict=True)
        return torch.stack([_soft_clip_once(p, q, temperature) for p, q in pairs]).mean()


def _soft_clip_once(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    aim = (b @ b.T / temperature).softmax(-1)
    cosine = a @ b.T / temperature
    rows = -(cosine.log_softmax(-1) * aim).sum(-1).mean()
    columns = -(cosine.T.log_softmax(-1) * aim).sum(-1).mean()
    return 0.5 * (rows + columns)


def mapper_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error, float32 scalar: mean over batch, tokens and dim. Both (batch, tokens, dim)."""
    return F.mse_loss(predicted.float(), target.float())


def mapper_target(
    posterior: Posterior, kind: Literal["mean", "sample"] = "mean", generator: torch.Generator | None = None
) -> Tensor:
    """(batch, tokens, dim), what the mapper learns to give, without gradient.

    Quirk: the paper speaks of matching the distribution; the published runs regress on the posterior mean
    (``--mode`` in src/s2n/train_b2i_os.py), which is ``kind="mean"``.
    """
    return (posterior.mode() if kind == "mean" else posterior.sample(generator)).detach()


def contrastive_target(tokens: Tensor, n_tokens: int, dim: int, seed: int = 0) -> Tensor:
    """(batch, n_tokens, dim), image tokens brought to the latent's shape for :func:`soft_clip`.

    Tokens of the right shape pass unchanged (the published case). Otherwise tokens are averaged along
    their order to ``n_tokens`` and multiplied by a fixed Gaussian matrix drawn from ``seed``, which keeps
    cosines between images to about 1 / sqrt(dim) (Johnson and Lindenstrauss 1984).
    """
    if tokens.shape[1] != n_tokens:
        tokens = F.adaptive_avg_pool1d(tokens.transpose(1, 2), n_tokens).transpose(1, 2)
    if tokens.shape[2] != dim:
        generator = torch.Generator().manual_seed(seed)
        matrix = torch.randn(tokens.shape[2], dim, generator=generator) / dim**0.5
        tokens = tokens @ matrix.to(tokens)
    return tokens
