"""Every baseline by name; what ``synbrain evaluate`` and ``synbrain compare`` take their rows from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from synbrain.baselines.controls import MeanMap, Nearest, Shuffled
from synbrain.baselines.gaussian import Isotropic, RidgeGaussian
from synbrain.baselines.linear_reg import LinearReg
from synbrain.baselines.mindsimulator import MindSimulator
from synbrain.baselines.mlp_autoencoder import MLPAE, MLPVAE
from synbrain.baselines.protocol import ResponseModel
from synbrain.baselines.ridge import BandedRidge, Ridge
from synbrain.errors import SynBrainError
from synbrain.metrics.device import with_float64

BASELINES: dict[str, Callable[..., ResponseModel]] = {
    "mean_map": MeanMap,
    "shuffled": Shuffled,
    "nearest": Nearest,
    "ridge": Ridge,
    "banded_ridge": BandedRidge,
    "ridge_gaussian": RidgeGaussian,
    "ridge_isotropic": Isotropic,
    "linear_reg": LinearReg,
    "mlp_ae": MLPAE,
    "mlp_vae": MLPVAE,
    "mindsimulator": MindSimulator,
    "mindsimulator_1": partial(MindSimulator, n_average=1),
}


def make_baseline(name: str, device: str | torch.device = "cpu") -> ResponseModel:
    """An unfitted baseline.

    Args:
        name: of :data:`BASELINES`.
        device: where it is fitted, of those whose arithmetic is torch's; himalaya's stays on the CPU.

    Raises:
        SynBrainError: where there is none of that name.
    """
    if name not in BASELINES:
        raise SynBrainError(f"no baseline {name!r}", f"choose among {', '.join(BASELINES)}")
    made = BASELINES[name]()
    if isinstance(made, Ridge):
        made.device = with_float64(device)
    elif isinstance(made, LinearReg):
        made.device = torch.device(device)
    return made
