"""Our kernel ridge beside himalaya's: the same kernels, penalties and folds, in turn in one process."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from himalaya.backend import set_backend
from himalaya.kernel_ridge import (
    solve_kernel_ridge_cv_eigenvalues,
    solve_multiple_kernel_ridge_random_search,
)
from sklearn.model_selection import PredefinedSplit

from nsd_made import ENCODER, latent_maps, truth
from synbrain.features.look_alikes import folds_of
from synbrain.features.tokens import TokenSet
from synbrain.linear.candidates import Kernel, Problem, choose
from synbrain.linear.components import fit_duals
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.kernels import Window, plain_grid, window_kernels, window_lattice
from synbrain.linear.meter import Meter
from synbrain.linear.ridge import FoldLayout, largest_eigenvalue
from watch import Watch


def run_himalaya(given: argparse.Namespace) -> dict[str, Any]:
    """Penalty (and window) of each voxel by cross-validation, and the weights of the best on all images.

    The same kernels, penalties and folds for both sides, which run in turn; himalaya on its torch backend in
    float32. Of MultipleKernelRidgeCV every kernel alone is asked for, as here.
    """
    n, v, n_folds = given.images, given.voxels, 5
    config = LinearPathConfig(n_folds=n_folds, keep=1, select_images=n, share=False)
    folds = folds_of(np.arange(n), n_folds, 0)
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
