"""What each quirk of the published training does on a simulated subject: docs/research/quirks.md.

    OMP_NUM_THREADS=1 python benchmarks/quirks.py

One change at a time to the recipe ``reference`` at a small size; the score is the mean over voxels of the
correlation between predicted and true (noiseless) responses to images that nothing was fitted on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synbrain.data.space import VoxelSpace
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.metrics.voxel import voxel_r
from synbrain.networks.brainvae import BrainVAEConfig
from synbrain.networks.mapper import MapperConfig
from synbrain.networks.presets import PRESETS, Preset
from synbrain.training.config import TrainConfig
from synbrain.training.fit import fit_model
from synbrain.training.networks import Workspace, network_sizes, new_networks
from synbrain.training.recipes import REFERENCE
from synbrain.training.subjects import TrainingSubject

N_TRAIN, N_TEST, TRIALS, N_VOXELS, NOISE = 240, 150, 3, 200, 1.5
TOKENS = (12, 24)
BASE = Preset(
    BrainVAEConfig(
        tokens=12, dim=24, channels=16, multipliers=(1, 2), res_blocks=1, pooled_length=128,
        projector_width=48,
    ),
    MapperConfig(tokens=12, dim=24, depth=2, heads=4),
)  # fmt: skip
# What 350 (for 15,724 voxels at /2000), EMA .9999 and 50,001 steps become at this size.
SMALL: dict[str, dict[str, Any]] = {
    "vae": {"lr": 1e-3, "epochs": 6, "stop": "never", "keep_stopping_round": True},
    "mapper": {"lr": 1e-3, "steps": 300, "ema_decay": 0.99, "ema_warmup": True, "precision": "fp32"},
}
# name -> stage -> changed values ("sizes" changes the networks, "loss" the VAE's loss).
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "published": {},
    "standardised responses": {"all": {"scale": "standardise"}},
    "mean over voxels (KL, clip / voxels)": {
        "loss": {"reconstruction": "mean", "kl_weight": 1e-3 / N_VOXELS, "clip_weight": 1000 / N_VOXELS}
    },
    "contrast on the mean": {"loss": {"contrast_on": "mean"}},
    "contrast over the whole batch": {"loss": {"contrast_batch": "gathered"}},
    "no contrast": {"loss": {"clip_weight": 0.0}},
    "mapper target sampled": {"mapper": {"target": "sample", "targets": "reencode"}},
    "mapper target averaged by image": {"mapper": {"targets": "image"}},
    "VAE on image means": {"vae": {"responses": "image_mean", "epochs": 18}},
    "VAE stops on validation": {"vae": {"stop": "validation"}},
    "VAE stops at a training error": {"vae": {"stop": "train_threshold", "stop_threshold": 640.0}},
    "the same, stopping epoch lost": {
        "vae": {"stop": "train_threshold", "stop_threshold": 640.0, "keep_stopping_round": False}
    },
    "mapper weight decay .05": {"mapper": {"weight_decay": 0.05}},
    "no gradient clipping": {"mapper": {"clip_grad": 0.0}},
    "EMA .9999 without warm-up": {"mapper": {"ema_decay": 0.9999, "ema_warmup": False}},
    "no EMA": {"mapper": {"ema_decay": 0.0}},
    "edge kernels of 1": {"vae sizes": {"edge_kernel": 1}},
    "one norm group (LayerNorm)": {"vae sizes": {"norm_groups": 1}},
    "logvar within 8": {"vae sizes": {"logvar_limit": 8.0}},
    "constant modulation": {"mapper sizes": {"modulation": "constant"}},
    "prediction v": {"mapper sizes": {"prediction": "v"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), default=list(CHANGES))
    options = parser.parse_args()
    print("| change | test r (mean over seeds) | each seed | s |\n|---|---|---|---|")
    for name in options.only:
        start = time.process_time()
        scores = [score(CHANGES[name], seed) for seed in range(options.seeds)]
        listed = ", ".join(f"{value:.3f}" for value in scores)
        print(
            f"| {name} | {np.mean(scores):.3f} | {listed} | {time.process_time() - start:.0f} |", flush=True
        )


def score(change: dict[str, dict[str, Any]], seed: int) -> float:
    pairs, test, truth = simulate(seed)
    vae = BASE.vae.model_copy(update=change.get("vae sizes", {}))
    mapper = BASE.mapper.model_copy(update=change.get("mapper sizes", {}))
    PRESETS["quirks"] = Preset(vae, mapper)
    loss = REFERENCE.vae.loss.model_copy(update=change.get("loss", {}))
    vae_stage = REFERENCE.vae.model_copy(update=SMALL["vae"] | {"loss": loss} | change.get("vae", {}))
    mapper_layer = REFERENCE.mapper.model_copy(update=SMALL["mapper"] | change.get("mapper", {}))
    changed = {"preset": "quirks", "seed": seed, "vae": vae_stage, "mapper": mapper_layer}
    config = TrainConfig.model_validate(
        REFERENCE.model_copy(update=changed | change.get("all", {})).model_dump()
    )
    subject = TrainingSubject("sim", pairs, VoxelSpace(N_VOXELS), "a.u.")
    networks = new_networks(network_sizes(pairs.tokens, config), seed)
    with tempfile.TemporaryDirectory() as folder:
        model = fit_model([subject], config, networks, Workspace(Path(folder)))
    predicted = model.predict(test)
    return float(np.mean(np.nan_to_num(voxel_r(predicted, truth))))  # a constant prediction counts as 0


def simulate(seed: int) -> tuple[Pairs, TokenSet, np.ndarray]:
    """Smooth, mildly non-linear responses to correlated tokens; unit signal sd, trials with ``NOISE`` sd."""
    rng = np.random.default_rng(seed)
    n, (tokens, dim) = N_TRAIN + N_TEST, TOKENS
    hidden = rng.standard_normal((n, 20))
    stored = np.tanh(hidden @ rng.standard_normal((20, tokens * dim)) / 4) + 0.3 * rng.standard_normal(
        (n, tokens * dim)
    )
    weights = rng.standard_normal((20, N_VOXELS + 8))
    weights = np.stack([np.convolve(row, np.hanning(9), "valid") for row in weights])
    signal = np.tanh(hidden @ weights / np.linalg.norm(weights, axis=0))
    signal = (signal - signal.mean(0)) / signal.std(0) + rng.standard_normal(N_VOXELS)  # and a mean map
    held = TokenSet(
        "toy", "digest", {"final": stored.reshape(n, tokens, dim).astype(np.float32)}, np.arange(n)
    )
    image = np.repeat(np.arange(N_TRAIN), TRIALS)
    trials = (signal[image] + NOISE * rng.standard_normal((len(image), N_VOXELS))).astype(np.float32)
    pairs = Pairs(held.take(np.arange(N_TRAIN)), trials, np.arange(len(trials)), image)
    return pairs, held.take(np.arange(N_TRAIN, n)), signal[N_TRAIN:]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
