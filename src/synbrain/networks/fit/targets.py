"""The mapper's latent targets, encoded once and memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from synbrain.files import new_array, open_array
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.fit.batches import SubjectData
from synbrain.progress import track


@torch.no_grad()
def posterior_means(
    vae: BrainVAE,
    subject: SubjectData,
    *,
    per_trial: bool,
    path: Path,
    accelerator: Accelerator,
    batch_size: int,
    show_progress: bool = False,
) -> NDArray[Any]:
    """Posterior means of the training trials, as they are or averaged over each image's trials.

    One averaged target is the same objective in expectation: for squared errors,
    mean_t |f - z_t|^2 = |f - mean_t z_t|^2 + a term without f.

    Args:
        vae: the trained network, on the accelerator's device; its encoder is used.
        subject: whose training trials are encoded.
        per_trial: one target for each trial, rather than one for each image.
        path: where the array lies; an array that stands there is from an interrupted run and used again,
            since the same checkpointed encoder made it.
        accelerator: its main process writes, the others wait and read.
        batch_size: trials encoded at once.
        show_progress: whether to show a bar.

    Returns:
        (n_trials or n_images, tokens, dim) float16 memory map: half the disk, and a rounding error three
        orders below the spread of latents.
    """
    if accelerator.is_main_process and not path.exists():
        _write(vae, subject, per_trial, path, accelerator.device, batch_size, show_progress)
    accelerator.wait_for_everyone()
    return open_array(path)


def _write(
    vae: BrainVAE,
    subject: SubjectData,
    per_trial: bool,
    path: Path,
    device: torch.device,
    batch_size: int,
    show_progress: bool,
) -> None:
    pairs = subject.train
    n_rows = pairs.n_trials if per_trial else pairs.n_images
    with new_array(path, (n_rows, vae.config.tokens, vae.config.dim), np.float16) as array:
        # trials in the order of their images, so that an image's trials are summed in one go
        order = np.arange(n_rows) if per_trial else np.argsort(pairs.image_of_trial, kind="stable")
        group = np.arange(n_rows) if per_trial else pairs.image_of_trial[order]
        total = np.zeros((vae.config.tokens, vae.config.dim), dtype=np.float32)
        counts = np.ones(n_rows, dtype=np.int64) if per_trial else pairs.repeats()
        seen = 0
        starts = range(0, len(order), batch_size)
        for start in track(starts, "encode targets", unit="batch", show=show_progress):
            rows = order[start : start + batch_size]
            responses = torch.from_numpy(subject.scale.scaled(pairs.trial_responses(rows))).to(device)
            means = vae.encode(responses).mean.float().cpu().numpy()
            for row, mean in zip(group[start : start + batch_size], means, strict=True):
                total += mean
                seen += 1
                if seen == counts[row]:
                    array[row] = total / seen
                    total[:] = 0.0
                    seen = 0
