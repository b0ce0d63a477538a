"""The plain linear kernel of a layer's tokens, made once for a set of images and kept beside their tokens.

At 9,000 images of 256 x 1664 tokens one kernel takes 35 TFLOP: minutes, where everything else about ridge
takes seconds. The linear path, the ridge row of `evaluate`, `report` and `compare` all need the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from synbrain.arrays import Float32
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.files import atomic_path, digest_of, require_space
from synbrain.linear.kernels import LayerGrid, add_gram, mean_diagonal, mirror
from synbrain.linear.meter import Meter

MANY_IMAGES = 2500  # from here on kernels stay float32, and are kept on disk


def token_kernel(
    tokens: TokenSet, layer: str, device: torch.device | None = None, meter: Meter | None = None
) -> tuple[Float32, Tensor]:
    """The plain linear kernel of one layer: ``K = X X'`` for tokens X centred over images, not scaled.

    Of many images (:data:`MANY_IMAGES`) whose tokens lie on disk it is read where it was made before.

    Args:
        tokens: images.
        layer: which layer.
        device: where products are made; None: the CPU.
        meter: counts; a kernel that is read counts as one that is made.

    Returns:
        (n_tokens, dim) means, and (n_images, n_images) float32.
    """
    device, meter = device or torch.device("cpu"), meter or Meter()
    file = _file(tokens, layer) if len(tokens) >= MANY_IMAGES else None
    kept = None if file is None else _read(file, device)
    if kept is not None:
        meter.add(float(len(tokens)) ** 2 * kept[0].size)
        return kept
    grid = LayerGrid(layer, None, tokens.layers[layer], tokens.rows)
    means = np.empty(tokens.shapes[layer], dtype=np.float32)
    kernel = torch.zeros((1, len(tokens), len(tokens)), device=device)
    for start, x, mean in grid.stretches(device):
        means[start : start + len(mean)] = mean.cpu().numpy()
        add_gram(kernel, x.flatten(1), np.ones(1), meter)
    mirror(kernel[0])
    if file is not None:
        _keep(file, means, kernel[0])
    return means, kernel[0]


def plain_kernel(
    tokens: TokenSet, grids: Sequence[LayerGrid], device: torch.device, meter: Meter
) -> tuple[Tensor, list[float]]:
    """As :func:`synbrain.linear.kernels.window_kernels` of plain grids and the one window that sees all.

    Returns:
        (1, n_images, n_images) float32 on ``device``, and its factor.
    """
    total = torch.zeros((len(tokens), len(tokens)), device=device)
    for grid in grids:
        total.add_(token_kernel(tokens, grid.layer, device, meter)[1], alpha=grid.scale**2 / grid.n_positions)
    factor = 1 / mean_diagonal(total)
    return total.mul_(factor)[None], [factor]


def is_kept(tokens: TokenSet) -> bool:
    """Whether kernels of these images are kept on disk."""
    return len(tokens) >= MANY_IMAGES and all(layer in tokens.files for layer in tokens.layers)


def _file(tokens: TokenSet, layer: str) -> Path | None:
    """Named by the content of the token file and by the images, so that one of others is never read."""
    stored = tokens.files.get(layer)
    if stored is None:
        return None
    key = digest_of([stored.sha256, tokens.rows.tolist()])[:16]
    return stored.folder / "kernels" / f"{stored.layer}-{key}.safetensors"


def _read(file: Path, device: torch.device) -> tuple[Float32, Tensor] | None:
    """None where there is none, or a broken one."""
    try:
        stored = load_file(file, device=str(device))
    except (OSError, SafetensorError):
        return None
    return stored["means"].cpu().numpy(), stored["kernel"]


def _keep(file: Path, means: Float32, kernel: Tensor) -> None:
    def write() -> None:
        require_space(file.parent, kernel.numel() * kernel.element_size())
        with atomic_path(file) as partial:
            save_file({"kernel": kernel.cpu(), "means": torch.from_numpy(means)}, partial)

    keep_latest(file, write)


def keep_latest(file: Path, write: Callable[[], None]) -> None:
    """Keep what ``write`` puts at ``NAME-KEY.SUFFIX``, in place of what another key named before.

    What is kept here can be made again: where the disk does not take it, nothing is kept.
    """
    try:
        write()
    except (SynBrainError, OSError):
        return
    name = file.name.rpartition("-")[0]
    for other in file.parent.glob(f"{name}-*{file.suffix}"):
        if other != file and other.name.rpartition("-")[0] == name:
            other.unlink(missing_ok=True)
