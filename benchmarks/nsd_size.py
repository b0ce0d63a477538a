"""The default recipe at the size of one NSD subject: time, arithmetic and memory of every part.

    python benchmarks/nsd_size.py --out DIR [--images 9000] [--voxels 15724] [--parts linear noise ...]

Every part runs in a process of its own and leaves ``DIR/PART.json``; what is there already is not run again,
so the same command goes on after an interruption. The table is printed at the end and kept in
``DIR/table.md``.

``make`` writes a made-up subject through the public functions: tiny pictures that hold nothing but their
number, ``prepare_table``, and an encoder whose tokens of CLIP's shape are a function of that number: smooth
maps of a few latent features with falling strengths, plus independent noise. Voxels see the features through
receptive fields, in patterns that they share, and a part that no linear map of the tokens reaches; trials add
noise of NSD's strength (ncsnr from .15 to .85), part of it shared among voxels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from himalaya.backend import set_backend
from himalaya.kernel_ridge import (
    solve_kernel_ridge_cv_eigenvalues,
    solve_multiple_kernel_ridge_random_search,
)
from PIL import Image
from sklearn.model_selection import PredefinedSplit

from synbrain.data.dataset import Dataset, load_dataset
from synbrain.features.encoder import Encoder, encoder_digest
from synbrain.features.store import open_tokens, write_tokens
from synbrain.features.tokens import Pairs, TokenSet, split_pairs
from synbrain.files import read_json, write_json, write_text
from synbrain.linear.candidates import Kernel, Problem, choose
from synbrain.linear.components import fit_duals
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, assign_folds, fit_linear_path
from synbrain.linear.kernels import Window, plain_grid, window_kernels, window_lattice
from synbrain.linear.meter import Meter
from synbrain.linear.ridge import FoldLayout, largest_eigenvalue
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise
from synbrain.prepare.table import prepare_table
from synbrain.progress import track

ENCODER, GRID, DIM, LATENTS = "made", 16, 1664, 64
REPEATS, FIELDS = 3, 8  # trials an image; receptive fields a side
PATTERNS, NOISE_PATTERNS = 60, 12


def latent_maps(numbers: np.ndarray) -> torch.Tensor:
    """(n, GRID * GRID, LATENTS) float32, smooth over positions, a function of each picture's number."""
    maps = []
    for number in numbers:
        rng = torch.Generator().manual_seed(int(number) + 1)
        coarse = torch.randn(1, LATENTS, 4, 4, generator=rng)
        fine = torch.randn(1, LATENTS, 8, 8, generator=rng)
        grown = [
            torch.nn.functional.interpolate(m, size=(GRID, GRID), mode="bilinear") for m in (coarse, fine)
        ]
        maps.append((grown[0] + 0.7 * grown[1])[0].flatten(1).T)
    return torch.stack(maps)


def made_encoder() -> Encoder:
    """Tokens of CLIP ViT-bigG's shape from the number that a picture holds."""
    rng = torch.Generator().manual_seed(7)
    strength = torch.arange(1, LATENTS + 1) ** -0.5
    mixing = strength[:, None] * torch.randn(LATENTS, DIM, generator=rng) / LATENTS**0.5

    def network(batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        numbers = batch[:, 0, 0, 0] + 256 * batch[:, 1, 0, 0] + 65536 * batch[:, 2, 0, 0]
        noise = torch.randn(
            len(batch), GRID**2, DIM, generator=torch.Generator().manual_seed(int(numbers[0]) + 10**9)
        )
        return {"final": latent_maps(numbers.numpy()) @ mixing + 0.3 * noise}

    def preprocess(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32)).permute(2, 0, 1)

    layers = {"final": (GRID**2, DIM)}
    describe = {"tokens": "made from the picture's number", "layers": {"final": [GRID**2, DIM]}}
    return Encoder(
        ENCODER, encoder_digest(ENCODER, "none", describe), layers, "final", preprocess, describe, network,
        torch.device("cpu"),
    )  # fmt: skip


def truth(numbers: np.ndarray, n_voxels: int, seed: int) -> np.ndarray:
    """(n, n_voxels) float32 mean responses of variance about 1."""
    rng = np.random.default_rng([seed, 1])
    centres = (np.arange(FIELDS) + 0.5) / FIELDS
    at = (np.arange(GRID) + 0.5) / GRID
    line = np.exp(-((at[None] - centres[:, None]) ** 2) / (2 * 0.1**2))
    line /= line.sum(axis=1, keepdims=True)
    fields = np.concatenate([np.kron(line, line), np.full((1, GRID**2), 1 / GRID**2)]).astype(np.float32)
    field_of = rng.integers(0, len(fields), n_voxels)
    patterns = rng.standard_normal((PATTERNS, LATENTS)) * (np.arange(1, PATTERNS + 1) ** -0.5)[:, None]
    loadings = rng.standard_normal((n_voxels, PATTERNS))
    weights = (loadings @ patterns).astype(np.float32)
    bent = rng.standard_normal((n_voxels, LATENTS)).astype(np.float32)
    out = np.empty((len(numbers), n_voxels), dtype=np.float32)
    for start in range(0, len(numbers), 500):
        seen = np.einsum(
            "fp,npl->fnl", fields, latent_maps(numbers[start : start + 500]).numpy(), optimize=True
        )
        for f in range(len(fields)):
            mine = np.flatnonzero(field_of == f)
            out[start : start + 500, mine] = seen[f] @ weights[mine].T
            out[start : start + 500, mine] += 1.5 * np.abs(seen[f]) @ bent[mine].T
    return (out - out.mean(axis=0)) / out.std(axis=0)


def make(out: Path, n_train: int, n_test: int, n_voxels: int, seed: int, first: int = 0) -> Dataset:
    """A dataset with tokens; pictures are numbered from ``first``."""
    source, n = out.with_name(out.name + "-source"), n_train + n_test
    (source / "images").mkdir(parents=True, exist_ok=True)
    numbers = np.arange(first, first + n)
    for number in numbers:
        pixels = np.zeros((8, 8, 3), dtype=np.uint8)
        pixels[:] = number % 256, number // 256 % 256, number // 65536
        Image.fromarray(pixels).save(source / "images" / f"{number:06d}.png")
    rng = np.random.default_rng([seed, 2])
    shown = rng.permutation(np.repeat(np.arange(n), REPEATS))
    table = pd.DataFrame({"image": [f"{first + i:06d}.png" for i in shown]})
    table["repeat"] = table.groupby("image").cumcount()
    table["split"] = np.where(shown < n_train, "train", "test")
    table["session"] = np.arange(len(shown)) // 750
    table.to_csv(source / "trials.csv", index=False)
    ncsnr = np.clip(rng.lognormal(np.log(0.45), 0.5, n_voxels), 0.1, 1.2).astype(np.float32)
    shared = rng.standard_normal((NOISE_PATTERNS, n_voxels)).astype(np.float32) / NOISE_PATTERNS**0.5
    means = truth(numbers, n_voxels, seed)
    responses = np.lib.format.open_memmap(
        source / "responses.npy", mode="w+", dtype=np.float32, shape=(len(shown), n_voxels)
    )
    for start in track(range(0, len(shown), 750), "make trials", unit="session", show=True):
        part = shown[start : start + 750]
        noise = 0.8 * rng.standard_normal((len(part), n_voxels), dtype=np.float32)
        noise += 0.6 * rng.standard_normal((len(part), NOISE_PATTERNS), dtype=np.float32) @ shared
        responses[start : start + 750] = means[part] + noise / ncsnr
    responses.flush()
    del means
    dataset = prepare_table(source, out, unit="sd of the signal", name=out.name, overwrite=True)
    (source / "responses.npy").unlink()
    write_tokens(dataset, made_encoder(), show_progress=True)
    return dataset


class Watch:
    """CPU and wall seconds of a block, its peak own memory (anonymous pages) and peak resident memory."""

    def __enter__(self) -> Watch:
        self.own, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._begin = time.perf_counter(), time.process_time()
        return self

    def _look(self) -> None:
        while not self._stop.is_set():
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.own = max(self.own, own * 1024)
            self._stop.wait(0.1)

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin[0]
        self.cpu = time.process_time() - self._begin[1]
        self._stop.set()
        self._thread.join()

    def row(self, gflop: float | None = None) -> dict[str, Any]:
        """What the table shows; the matmul rate is measured right after the block."""
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        row = {"seconds": self.seconds, "cpu_seconds": self.cpu, "own": self.own, "resident": resident}
        if gflop is not None:
            rate = matmul_rate_of_cpu()
            row |= {"gflop": gflop, "per_cent_of_matmul_rate": 100 * gflop / self.cpu / rate, "rate": rate}
        return row | {"threads": torch.get_num_threads(), "load": os.getloadavg()[0]}


def matmul_rate_of_cpu(size: int = 2048, repeats: int = 3) -> float:
    """GFLOP per CPU second of a float32 matrix product: other work on the machine counts little."""
    a, best = torch.randn(size, size), float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        (a @ a).sum().item()
        best = min(best, time.process_time() - begin)
    return 2 * size**3 / best / 1e9


def opened(folder: Path) -> tuple[Dataset, TokenSet]:
    dataset = load_dataset(folder)
    return dataset, open_tokens(dataset, ENCODER)


def run_make(given: argparse.Namespace) -> dict[str, Any]:
    with Watch() as watch:
        make(given.out / "dataset", given.images, given.test_images, given.voxels, seed=0)
    return watch.row()


def fitted(pairs: Pairs, given: argparse.Namespace) -> LinearFit:
    return fit_linear_path(pairs, LinearPathConfig(), device=given.device, show_progress=True)


def run_linear(given: argparse.Namespace) -> dict[str, Any]:
    train, test = split_pairs(*opened(given.out / "dataset"))
    with Watch() as watch:
        fit = fitted(train, given)
    fit.path.save(given.out / "linear")
    np.save(given.out / "linear" / "out_of_fold.npy", fit.out_of_fold)
    np.save(given.out / "linear" / "folds.npy", fit.folds)
    r = mean_defined(voxel_r(fit.path.predict(test.tokens), test.repeat_means()))[0]
    about = {"n_images": train.n_images, "n_voxels": train.n_voxels, "test_voxel_r": r, **fit.path.about}
    return watch.row(getattr(fit, "gflop", None)) | {"about": about}


def run_noise(given: argparse.Namespace) -> dict[str, Any]:
    """Around the linear path's predictions, or, where it was not fitted, around shrunk true means."""
    train, _ = split_pairs(*opened(given.out / "dataset"))
    stored = given.out / "linear" / "out_of_fold.npy"
    if stored.exists():
        predicted = np.load(stored)
    else:
        predicted = 0.7 * truth(np.arange(train.n_images), train.n_voxels, 0)
    with Watch() as watch:
        fit_response_noise(train, predicted, NoiseConfig(), seed=0)
    about = {"n_trials": train.n_trials, "n_voxels": train.n_voxels, "linear_path": stored.exists()}
    return watch.row() | {"about": about}


def run_himalaya(given: argparse.Namespace) -> dict[str, Any]:
    """Penalty (and window) of each voxel by cross-validation, and the weights of the best on all images.

    The same kernels, penalties and folds for both sides, which run in turn; himalaya on its torch backend in
    float32. Of MultipleKernelRidgeCV every kernel alone is asked for, as here.
    """
    n, v, n_folds = given.images, given.voxels, 5
    config = LinearPathConfig(n_folds=n_folds, keep=1, select_images=n, share=False)
    folds = assign_folds(n, n_folds, 0)
    y = truth(np.arange(n), v, 0) + np.random.default_rng(0).standard_normal((n, v), dtype=np.float32)
    y -= y.mean(axis=0)
    maps = latent_maps(np.arange(n)).half().numpy()
    grid = plain_grid(TokenSet(ENCODER, "", {"final": maps}, np.arange(n)), "final")
    windows = [Window(), *window_lattice(2, 0.12)]
    cpu = torch.device("cpu")
    kernels, factors = window_kernels([grid], windows, cpu, Meter())
    layout = FoldLayout.of(folds, np.ones(n), n_folds, cpu)
    laid = [layout.lay_kernel(kernel) for kernel in kernels]
    candidates = [
        Kernel([grid], window, factor, k.numpy(), largest_eigenvalue(k))
        for window, factor, k in zip(windows, factors, laid, strict=True)
    ]
    of_voxel = layout.lay_columns(torch.from_numpy(y.T.copy()))
    cv, alphas = PredefinedSplit(folds), np.array(config.alphas, dtype=np.float32)
    set_backend("torch")

    def ours(n_kernels: int) -> None:
        problem = Problem(candidates[:n_kernels], layout, layout.place, layout, config, cpu, Meter())
        fit_duals(problem, of_voxel, choose(problem, of_voxel), None, None, {})

    def theirs(n_kernels: int) -> None:
        batch = {"n_targets_batch": 1024, "n_targets_batch_refit": 1024, "n_alphas_batch": 3}
        targets = torch.from_numpy(y)
        if n_kernels == 1:
            solve_kernel_ridge_cv_eigenvalues(kernels[0], targets, alphas=alphas, cv=cv, **batch)
            return
        alone = np.clip(np.eye(n_kernels, dtype=np.float32), 1e-6, None)
        solve_multiple_kernel_ridge_random_search(
            kernels,
            targets,
            n_iter=alone,
            alphas=alphas,
            cv=cv,
            return_weights="dual",
            progress_bar=False,
            **batch,
        )

    row: dict[str, Any] = {"images": n, "voxels": v}
    with Watch() as watch:
        for name, n_kernels in (("KernelRidgeCV", 1), ("MultipleKernelRidgeCV", len(windows))):
            taken: dict[str, list[float]] = {"ours": [], "himalaya": []}
            for _ in range(2 if n < 3000 else 1):
                for side, fit in (("ours", ours), ("himalaya", theirs)):
                    begin = time.process_time()
                    fit(n_kernels)
                    taken[side].append(time.process_time() - begin)
            best = {side: min(seconds) for side, seconds in taken.items()}
            row[name] = best | {"ratio": best["himalaya"] / best["ours"]}
            print(name, n_kernels, "kernels", row[name], flush=True)
    return row | watch.row()


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "make": run_make,
    "linear": run_linear,
    "noise": run_noise,
    "himalaya": run_himalaya,
}


def table(out: Path) -> str:
    """Markdown, one line a part that has run."""
    lines = [
        "| part | wall s | CPU s | GFLOP | % of matmul rate | own GiB | resident GiB | threads | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in PARTS:
        if (out / f"{name}.json").exists():
            row = read_json(out / f"{name}.json")
            gflop = f"{row['gflop']:.0f}" if "gflop" in row else ""
            share = f"{row['per_cent_of_matmul_rate']:.0f}" if "gflop" in row else ""
            lines.append(
                f"| {name} | {row['seconds']:.0f} | {row['cpu_seconds']:.0f} | {gflop} | {share} "
                f"| {row['own'] / 2**30:.2f} | {row['resident'] / 2**30:.2f} | {row['threads']} "
                f"| {row['load']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=9000)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--voxels", type=int, default=15724)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--here", action="store_true", help="run one part in this process")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for part in given.parts:
        done = given.out / f"{part}.json"
        if given.here:
            write_json(done, json.loads(json.dumps(PARTS[part](given))))
        elif not done.exists():
            print(f"[{part}]", file=sys.stderr, flush=True)
            sizes = ["--images", given.images, "--test-images", given.test_images, "--voxels", given.voxels]
            command = [sys.executable, __file__, "--out", given.out, "--device", given.device, *sizes]
            subprocess.run([*map(str, command), "--parts", part, "--here"], check=True)
    if not given.here:
        write_text(given.out / "table.md", table(given.out))
        print(table(given.out))


if __name__ == "__main__":
    main()
