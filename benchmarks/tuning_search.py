"""Ways to tune an encoder, one change at a time, told apart without a test image.

    python benchmarks/tuning_search.py BASE... --kept KEPT... --work FOLDER [--ways "Poisson loss" ...]
        [--options '{"lr": 2e-4}']

Every way is a tuning of its own on BASE, in FOLDER/WAY. What is told: the mean r on the images of BASE that
are held out of every tuning; and the cross-validated r on the training images of KEPT, for each number of
images: of linear paths on the tuned layers alone, and with the readouts as their prior. `seed 1` says
how much of a difference is chance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from synbrain.data.dataset import Dataset, load_dataset
from synbrain.features import efficientnet_training
from synbrain.files import read_json, write_json
from synbrain.linear.fit import fit_linear_path
from synbrain.linear.prior import fit_with_prior
from synbrain.metrics.voxel import voxel_r
from synbrain.tuning import tune
from synbrain.tuning.options import LAYERS, TuneOptions
from tuning import LINEAR, Cell, Frozen, cpu_seconds, readout_space, session_parser, unseen

BLOCKS = 16  # of EfficientNet-Lite0
WAYS: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "seed 1": {"seed": 1},
    "Poisson loss": {"loss": "poisson"},
    "contrast .2": {"contrast": 0.2},
    "rates x .8 a block": {"layer_decay": 0.8},
    "network's rate x .25": {"lr": 2e-4},
    "network's rate x .5": {"lr": 4e-4},
    "network's rate x 2": {"lr": 1.6e-3},
    "readouts' rate x .4": {"lr_readout": 2e-3},
    "readouts' rate x 2": {"lr_readout": 1e-2},
    "places' rate x .33": {"lr_places": 4e-2},
    "places' rate x 3": {"lr_places": 0.36},
    "stochastic depth .1": {"drop": 0.1},
    "with block 4": {"layers": ["block4", "block7", "block10", "block14"]},
    "with the final layer": {"layers": ["block7", "block10", "block14", "final"]},
    "384 channels": {"channels": 384},
    "weights by noise ceiling": {"ceiling_weights": True},  # for datasets of single trials
}


def main() -> None:
    parser = session_parser(__doc__, ["50", "200", "all"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--options", type=json.loads, default={}, help="TuneOptions of every way, as JSON")
    typed = parser.parse_args()
    base, kept = [load_dataset(p) for p in typed.base], [load_dataset(p) for p in typed.kept]
    print("| | CPU s | held-out images of the tuned | " + " | ".join(typed.budgets) + " |")
    print("|---|---|---|" + "---|" * len(typed.budgets))
    for way in typed.ways:
        file = typed.work / re.sub(r"\W+", "-", way) / "row.json"
        if not file.exists():
            write_json(file, row_of(way, base, kept, file.parent, typed.budgets, typed.options))
        row = read_json(file)
        cells = [f"{row['alone'][b]:.4f}, {row['prior'][b]:.4f}" for b in typed.budgets]
        print(
            f"| {way} | {row['cpu_seconds']:.0f} | {row['held_out']:.4f} | " + " | ".join(cells) + " |",
            flush=True,
        )


def row_of(
    way: str, base: list[Dataset], kept: list[Dataset], work: Path, budgets: list[str], common: dict[str, Any]
) -> dict[str, Any]:
    """Tune in one way, and fit the sessions kept back."""
    changed = dict(WAYS[way])
    decay, drop = changed.pop("layer_decay", 1.0), changed.pop("drop", 0.0)
    options = TuneOptions(**{**common, **changed})
    out = work / f"search-{work.name}"  # its tokens lie beside those of other ways
    started = cpu_seconds()
    if not (out / "checksums.json").exists():
        with rates_by_block(decay), dropped_blocks(drop):
            tune.tune_encoder(base, options, out=out, keep_out=kept, resume=True, show_progress=True)
    took = cpu_seconds() - started
    space = readout_space(out)
    chosen = list(options.layers or LAYERS[options.encoder])
    frozen = Frozen(
        options.encoder, [*LAYERS[options.encoder], "final"], work, 0
    )  # tells which images are copies
    row: dict[str, Any] = {"cpu_seconds": took, "alone": {}, "prior": {}}
    row["held_out"] = float(
        np.mean([told["held_out_r"] for told in read_json(out / "config.json")["datasets"]])
    )
    layers = [*chosen, "readout"]
    kept = [unseen(dataset, str(out), layers) for dataset in kept]
    for budget in budgets:
        each = []
        for dataset in kept:
            train, _ = Cell(dataset, budget, frozen).pairs(str(out), layers)
            alone = fit_linear_path(train, LINEAR, seed=0)
            fit = fit_with_prior(train, space, LINEAR, seed=0, alone=alone)
            measured = train.repeat_means()
            each.append([np.nanmean(voxel_r(f.out_of_fold, measured)) for f in (alone, fit)])
        row["alone"][budget], row["prior"][budget] = (float(v) for v in np.mean(each, axis=0))
    return row


@contextmanager
def rates_by_block(decay: float) -> Iterator[None]:
    """The network's learning rates shrink by ``decay`` from one block to the block before it."""

    def stage(**given: Any) -> tune.Stage:
        inner: Callable[[str], float] = given["rate_of"]

        def rate_of(name: str) -> float:
            block = re.search(r"_blocks\.(\d+)\.", name)
            depth = int(block[1]) if block else (-1 if "stem" in name else BLOCKS)
            below = BLOCKS - 1 - min(depth, BLOCKS - 1)
            return inner(name) * (decay**below if name.startswith("network.") else 1.0)

        return Stage(**{**given, "rate_of": rate_of})

    Stage = tune.Stage
    with mock.patch.object(tune, "Stage", stage):
        yield


@contextmanager
def dropped_blocks(share: float) -> Iterator[None]:
    """Branches beside the identity are left out for single images, those of the last block with probability
    ``share``, of earlier ones in proportion (Huang et al. 2016)."""
    inner = efficientnet_training._through
    generator = torch.Generator().manual_seed(0)
    order: dict[int, int] = {}  # blocks as they are first gone through

    def through(block: Any, inputs: Tensor) -> Tensor:
        x = inner(block, inputs)
        number = order.setdefault(id(block), len(order))
        if not share or not torch.is_grad_enabled() or x.shape != inputs.shape or not block.id_skip:
            return x
        kept = 1 - share * (number + 1) / BLOCKS
        mask = (torch.rand(len(x), 1, 1, 1, generator=generator) < kept).to(x.dtype) / kept
        return inputs + mask * (x - inputs)

    with mock.patch.object(efficientnet_training, "_through", through):
        yield


if __name__ == "__main__":
    main()
