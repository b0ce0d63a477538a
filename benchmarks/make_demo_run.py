"""Makes src/synbrain/demo: the run ``synbrain/demo`` and the few recordings that are shown beside it.

A simulated subject is prepared and trained by the same functions as any other. What ships is cut to size: the
A simulated subject is prepared and trained by the same functions as any other. What ships is cut to size:
the linear path alone (two encoder layers, its strongest RANK patterns over training images), with its trial

    python benchmarks/make_demo_run.py SCRATCH        # about four minutes on one core
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from synbrain.data.dataset import DatasetInfo, Split, Stimuli, load_dataset, write_tables
from synbrain.evaluation.evaluate import evaluate
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens
from synbrain.features.tokens import split_pairs
from synbrain.files import allocate_array, new_folder
from synbrain.linear.path import LinearPath
from synbrain.model.synbrain import SynBrain
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.simulate.experiment import SimulationSize, simulate
from synbrain.training.calibrate import calibrate
from synbrain.training.options import TrainOptions
from synbrain.training.train import train

LAYERS, RANK = ["block5", "block11"], 32
SIZE = SimulationSize(500, 60, 5, 300, (36, 21, 24), 4.2, 900, 96)
N_TEST, N_TRAIN = 12, 36
OUT = Path(__file__).parents[1] / "src/synbrain/demo"


def cut(model: SynBrain, path: LinearPath, patterns: np.ndarray) -> SynBrain:
    """``model`` without networks, its predictions projected on ``patterns`` (RANK, n_voxels)."""
    part = model.subject()
    to_patterns = (path.mixing @ patterns.T).astype(np.float32)
    projections = {
        layer: (projection.astype(np.float32) @ to_patterns).astype(np.float16)
        for layer, projection in path.projections.items()
    }
    # what the projection leaves out of the intercept is kept: it is the same for every image
    small = LinearPath(projections, patterns.astype(np.float32), path.intercept, path.shapes, {
        "fitted by": f"the linear path of a run on {part.name}", "patterns kept": RANK,
    })  # fmt: skip
    config = model.config.model_copy(update={"mapper_layer": None})
    return SynBrain(config, {part.name: replace(part, linear=small, held_out=None, shrink=0.0)})


def main(scratch: Path) -> None:
    simulate(scratch / "tree", size=SIZE, noise="low", seed=4, overwrite=True)
    dataset = prepare_nsd(scratch / "tree", scratch / "data", subject=1, overwrite=True)
    make_tokens(dataset, FeatureOptions(layers=LAYERS), overwrite=True)
    options = TrainOptions(layers=LAYERS, seed=0)
    model = train([dataset], options, out=scratch / "whole", overwrite=True)
    path = model.subject().linear
    assert path is not None
    tokens = open_tokens(dataset, model.config.encoder, model.config.layers)
    pairs, _ = split_pairs(dataset, tokens)
    predicted = path.predict(pairs.tokens) - path.intercept
    _, _, patterns = np.linalg.svd(predicted, full_matrices=False)
    small = cut(model, path, patterns[:RANK])
    small = calibrate(small, dataset)
    scores = evaluate(small, dataset)
    print(scores)
    shutil.rmtree(OUT, ignore_errors=True)
    small.save_pretrained(OUT / "run", scores=scores.to_json())
    rng = np.random.default_rng(0)
    chosen: tuple[tuple[Split, int], ...] = (("test", N_TEST), ("train", N_TRAIN))
    rows = np.concatenate(
        [np.sort(rng.choice(dataset.image_rows(split), n, replace=False)) for split, n in chosen]
    )
    with new_folder(OUT / "dataset") as building:
        (building / "images").mkdir()
        images = dataset.images.iloc[rows].reset_index(drop=True)
        images["name"] = [f"{split}-{i:02d}.jpg" for i, split in enumerate(images["split"])]
        for row, name in zip(rows, images["name"], strict=True):
            dataset.load_image(int(row)).save(building / "images" / name, quality=90)
        place = {int(row): i for i, row in enumerate(rows)}
        kept = np.flatnonzero(dataset.trials["image"].isin(rows).to_numpy())
        trials = dataset.trials.iloc[kept].reset_index(drop=True)
        trials["image"] = trials["image"].map(place).astype("int32")
        array = allocate_array(building / "responses.npy", (len(kept), dataset.n_voxels), np.float32)
        array[:] = dataset.responses[kept]
        array.flush()
        info = dataset.info.model_dump() | {
            "name": "simulated demo", "n_trials": len(kept), "n_images": len(rows),
            "stimuli": Stimuli(kind="folder", path="images"),
            "provenance": {"reader": "simulated", "notes": ["a part of a simulated experiment"]},
        }  # fmt: skip
        names = [f"images/{name}" for name in images["name"]]
        write_tables(building, DatasetInfo(**info), trials, images, dataset.space, names)
    load_dataset(OUT / "dataset")
    print(f"{sum(p.stat().st_size for p in OUT.rglob('*') if p.is_file()) / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scratch", type=Path, help="folder for what is made on the way")
    main(parser.parse_args().scratch)
