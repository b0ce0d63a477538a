"""Arrays where they are computed: numpy's on a CPU, tensors on a GPU.

One formula serves both: it keeps to operators and to the methods and functions that both have. Scores are
differences of large sums, so that everything is float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch  # a second, which who scores on a CPU need not wait for

    Device = str | torch.device
else:
    Device = Any

TENSORS = ("cuda",)  # kinds of devices whose arrays are tensors


def on(values: NDArray[Any], device: Device) -> Any:
    """The values in float64 where ``device`` computes: a tensor on a GPU, numpy's array everywhere else.

    Apple's MPS has no float64: its work is the CPU's.
    """
    if str(device).partition(":")[0] in TENSORS:
        return as_tensor(values, device)
    return np.asarray(values, dtype=np.float64)


def with_float64(device: Device) -> torch.device:
    """The device, or the CPU in place of Apple's MPS."""
    import torch

    place = torch.device(device)
    return place if place.type == "cuda" else torch.device("cpu")


def as_tensor(values: NDArray[Any], device: Device) -> torch.Tensor:
    """Float64 on the device; what is stored in float32 is moved so."""
    import torch

    stored = np.require(values, requirements=["C", "W"])  # torch takes no array that cannot be written
    return torch.from_numpy(stored).to(device).double()


def like(known: Any, values: NDArray[Any]) -> Any:
    """The values in float64 where ``known`` is."""
    return on(values, "cpu") if isinstance(known, np.ndarray) else as_tensor(values, known.device)


def host(values: Any) -> NDArray[Any]:
    """A tensor or an array as numpy's."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def namespace(values: Any) -> Any:
    """numpy or torch, for functions of the same name in both (``log``, ``linalg.cholesky``)."""
    if isinstance(values, np.ndarray):
        return np
    import torch

    return torch


def ordered(values: Any) -> Any:
    """Sorted along the last axis."""
    if isinstance(values, np.ndarray):
        return np.sort(np.ascontiguousarray(values), axis=-1)
    return values.sort(dim=-1).values


def distances(a: Any, b: Any) -> Any:
    """(n, m) Euclidean distances between the rows of (n, d) and (m, d), from their differences."""
    if isinstance(a, np.ndarray):
        from scipy.spatial.distance import cdist  # not for those who need the constants beside scores alone

        return cdist(a, b)
    import torch

    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
