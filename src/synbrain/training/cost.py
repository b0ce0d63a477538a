"""What a training will take before it starts: parameters, arithmetic, memory, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from synbrain.features.joint import owner_of
from synbrain.linear.cost import LinearPathCost, in_turn, linear_path_cost
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig, mlp_parameters
from synbrain.networks.presets import preset
from synbrain.training.config import TrainConfig

BATCHES = (1, 8, 24, 64)
ATTAINED = 0.5  # share of the measured matmul rate that a whole step is taken to reach


@dataclass(frozen=True)
class TrainingCost:
    """Cost of the two network stages of one training, and of the linear path before them.

    Attributes:
        parameters: as :func:`synbrain.training.cost.parameter_counts` names them.
        gflop: per sample, as :func:`synbrain.training.cost.step_gflop` names them.
        steps: stage -> steps at most (early stopping may end it before).
        batch: stage -> samples a step.
        state_bytes: stage -> weights, gradients and AdamW's two moments in float32, plus the average.
        activation: stage -> bytes of saved activations per sample, float32.
        linear: of the linear path; None: the recipe has none.
    """

    parameters: dict[str, int]
    gflop: dict[str, float]
    steps: dict[str, int]
    batch: dict[str, int]
    state_bytes: dict[str, int]
    activation: dict[str, int]
    linear: LinearPathCost | None = None

    def step_gflop(self, stage: str) -> float:
        """GFLOP of one whole step of "vae" or "mapper"."""
        return self.gflop[f"{stage}_step"] * self.batch[stage]

    def memory(self, stage: str, batch: int) -> int:
        """Bytes that one step of ``batch`` samples holds."""
        return self.state_bytes[stage] + batch * self.activation[stage]

    def seconds(self, stage: str, gflop_per_second: float) -> float:
        """Longest time of a stage, at the share ``ATTAINED`` of a measured matmul rate."""
        return self.steps[stage] * self.step_gflop(stage) / (ATTAINED * gflop_per_second)


def training_cost(
    config: TrainConfig,
    n_voxels: int,
    n_trials: int,
    tokens: tuple[int, int] | None = None,
    *,
    n_images: int | None = None,
    layers: Mapping[str, tuple[int, int]] | None = None,
) -> TrainingCost:
    """Cost of the networks and the linear path of ``config``; nothing is allocated. Noise is not counted.

    Args:
        config: the resolved training configuration.
        n_voxels: of a response.
        n_trials: training trials of all subjects, validation images included.
        tokens: (n_tokens, dim) of the layer that the networks read; None: the preset's own.
        n_images: distinct training images; None: a third of the trials.
        layers: layer -> (n_tokens, dim) of all layers that the linear path reads; None: that of the networks.
            Those of several encoders are called ``ENCODER:LAYER``.
    """
    sizes = preset(config.preset, tokens)
    linear = None
    if config.linear_path:
        shapes = layers or {"final": sizes.mapper.token_shape}
        if config.linear.layers is not None:
            shapes = {layer: shapes[layer] for layer in config.linear.layers if layer in shapes}
        n, owners = n_images or -(-n_trials // 3), dict.fromkeys(map(owner_of, shapes))
        each = [{k: shape for k, shape in shapes.items() if owner_of(k) == owner} for owner in owners]
        linear = in_turn([linear_path_cost(n, n_voxels, of_one, config.linear) for of_one in each])
    parameters = parameter_counts(sizes.vae, sizes.mapper)
    used = max(1, round(n_trials * (1 - config.validation_fraction)))
    batch = {"vae": config.vae.batch_size, "mapper": config.mapper.batch_size}
    averaged = {"vae": config.vae.ema_decay > 0, "mapper": config.mapper.ema_decay > 0}
    return TrainingCost(
        parameters=parameters,
        gflop=step_gflop(sizes.vae, sizes.mapper, n_voxels),
        steps={"vae": config.vae.epochs * -(-used // batch["vae"]), "mapper": config.mapper.steps},
        batch=batch,
        state_bytes={stage: parameters[stage] * 4 * (4 + averaged[stage]) for stage in batch},
        activation=activation_bytes(sizes.vae, sizes.mapper, n_voxels),
        linear=linear,
    )


def matmul_rate(device: str = "cpu", size: int = 1024, repeats: int = 4) -> float:
    """GFLOP per second of a float32 matrix product here and now (the best of a few)."""
    a = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(repeats + 1):  # the first one warms up
        begin = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def parameter_counts(vae: BrainVAEConfig, mapper: MapperConfig) -> dict[str, int]:
    """Trainable parameters of both networks and of their parts; nothing is allocated.

    "mapper_folded" is what inference needs (:meth:`Mapper.fold`), "mapper_mlps" what the published few-shot
    adaptation trains.
    """
    with torch.device("meta"):
        v, m = BrainVAE(vae), Mapper(mapper)
        folded = Mapper(mapper.model_copy(update={"modulation": "constant"}))
    mlps = set(mlp_parameters(m))
    return {
        "vae": _size(v),
        "vae_encoder": _size(v.encoder),
        "vae_decoder": _size(v.decoder),
        "vae_heads": _size(v.mean_head) + _size(v.logvar_head),
        "vae_post": _size(v.post),
        "mapper": _size(m),
        "mapper_folded": _size(folded),
        "mapper_mlps": sum(p.numel() for name, p in m.named_parameters() if name in mlps),
    }


def step_gflop(vae: BrainVAEConfig, mapper: MapperConfig, n_voxels: int) -> dict[str, float]:
    """Arithmetic per sample, in GFLOP (1e9 multiplications and additions), of the plain operations.

    Winograd's convolutions do fewer than these; element-wise work is not counted. Keys: "vae_encode",
    "vae_forward", "vae_step" (forward and backward), "mapper_forward", "mapper_step".
    """
    with torch.device("meta"):
        v, m = BrainVAE(vae, fast=False), Mapper(mapper)
        y, noise = torch.empty(1, n_voxels), torch.empty(1, vae.tokens, vae.dim)
        tokens = torch.empty(1, *mapper.token_shape)
    forward = _gflop(lambda: v(y, noise)[0])
    mapped = _gflop(lambda: m(tokens))
    return {
        "vae_encode": _gflop(lambda: v.encode(y).mean),
        "vae_forward": forward,
        "vae_step": _gflop(lambda: v(y, noise)[0].sum().backward()),
        "mapper_forward": mapped,
        "mapper_step": _gflop(lambda: m(tokens).sum().backward()),
    }


def activation_bytes(
    vae: BrainVAEConfig,
    mapper: MapperConfig,
    n_voxels: int,
    *,
    batch: int = 1,
    checkpointing: bool = False,
    fast: bool = True,
) -> dict[str, int]:
    """Bytes that autograd keeps for the backward pass of one float32 training step, without parameters.

    Args:
        vae, mapper: sizes.
        n_voxels: of a response.
        batch: samples of a step.
        checkpointing: with recomputed activations.
        fast: with the fast paths of a CPU in float32; False for other devices.
    """
    with FakeTensorMode():  # CPU tensors without data: what a CPU keeps is kept, nothing is allocated
        v = BrainVAE(vae, checkpointing=checkpointing, fast=fast)
        m = Mapper(mapper, checkpointing=checkpointing)
        y, noise = torch.empty(batch, n_voxels), torch.empty(batch, vae.tokens, vae.dim)
        tokens = torch.empty(batch, *mapper.token_shape)
        return {
            "vae": saved_bytes(lambda: v(y, noise), v),
            "mapper": saved_bytes(lambda: m(tokens), m),
        }


def saved_bytes(forward: Callable[[], object], network: nn.Module) -> int:
    """Bytes of the distinct tensors that autograd keeps of ``forward()``, parameters not counted."""
    owned = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holds them, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _gflop(work: Callable[[], object]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops()) / 1e9
