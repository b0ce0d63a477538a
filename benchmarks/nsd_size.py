"""The default recipe at the size of one NSD subject: time, arithmetic and memory of every part.

    python benchmarks/nsd_size.py --out DIR [--images 9000] [--voxels 15724] [--parts linear train ...]

Every part runs in a process of its own and leaves ``DIR/PART.json``; what is there already is not run
again, so the same command goes on after an interruption. The table is printed at the end and kept in
``DIR/table.md``.

| part | what it does |
|---|---|
| make | a made-up subject with tokens (``nsd_made.py``) |
| linear | the linear path, kept in ``DIR/linear`` |
| noise | trial noise around its predictions |
| train | the run folder ``DIR/run``: that linear path, networks and noise of the default recipe |
| evaluate | 40 samples an image, all rows and intervals |
| report | the same with its pictures and the page |
| synthesize | one trial of 73,000 images to disk |
| adapt | that run to a second subject, with one hour |
| law | the linear path on half the images and a quarter of the voxels: exponents, and what was foretold |
| himalaya | our ridge beside himalaya's (``nsd_himalaya.py``) |
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nsd_himalaya import run_himalaya
from nsd_made import ENCODER, bank_encoder, make, picture, truth
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.evaluation.evaluate import evaluate
from synbrain.evaluation.options import EvaluateOptions
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, TokenSet, split_pairs
from synbrain.files import read_json, write_json, write_text
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.cost import linear_path_cost
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.path import LinearPath
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.model.options import SynthesizeOptions
from synbrain.model.synbrain import SynBrain
from synbrain.model.synthesis import synthesize
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise
from synbrain.training.adapt import adapt
from synbrain.training.fit import fit_model
from synbrain.training.leakage import training_images
from synbrain.training.networks import Workspace, network_sizes, new_networks
from synbrain.training.options import AdaptOptions, TrainOptions
from synbrain.training.subjects import training_subjects
from synbrain.training.workspace import Output, save_finished, training_folder
from synbrain.viewer.options import ReportOptions
from synbrain.viewer.report import report
from watch import Watch

SAMPLES = 40
SECOND_IMAGES, SECOND_TEST, SECOND_VOXELS = 250, 50, 0.91  # an hour; share of the first subject's voxels


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
    return watch.row(fit.gflop) | {"about": about}


def stored_fit(given: argparse.Namespace) -> LinearFit:
    folder = given.out / "linear"
    of_images = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("out_of_fold", "folds"))
    return LinearFit(LinearPath.load(folder), *of_images)


def run_noise(given: argparse.Namespace) -> dict[str, Any]:
    """Around the linear path's predictions, or, where it was not fitted, around shrunk true means."""
    train, _ = split_pairs(*opened(given.out / "dataset"))
    stored = (given.out / "linear" / "out_of_fold.npy").exists()
    predicted = (
        stored_fit(given).out_of_fold
        if stored
        else np.float32(0.7) * truth(np.arange(train.n_images), train.n_voxels, 0)
    )
    with Watch() as watch:
        fit_response_noise(train, predicted, NoiseConfig(), seed=0)
    about = {"n_trials": train.n_trials, "n_voxels": train.n_voxels, "linear_path": stored}
    return watch.row() | {"about": about}


def run_train(given: argparse.Namespace) -> dict[str, Any]:
    """As ``synbrain.train`` does, with the linear path that the part before fitted."""
    config = TrainOptions(encoder=ENCODER).config()
    datasets, output = [load_dataset(given.out / "dataset")], Output(given.out / "run", resume=True)
    with Watch() as watch:
        tokens = [open_tokens(dataset, ENCODER) for dataset in datasets]
        subjects = training_subjects(datasets, training_images(datasets), tokens)
        subjects[0] = replace(subjects[0], linear_fit=stored_fit(given))
        networks = None
        if not given.without_networks:
            networks = new_networks(network_sizes(subjects[0].pairs.tokens, config), config.seed)
        with training_folder(output, config.model_dump(mode="json")) as folder:
            workspace = Workspace(folder, show_progress=True)
            model = fit_model(subjects, config, networks, workspace)
            save_finished(model, output)
    assert model.report is not None
    return watch.row() | {"about": model.report.model_dump(mode="json")}


def run_evaluate(given: argparse.Namespace) -> dict[str, Any]:
    with Watch() as watch:
        model, dataset = SynBrain.from_pretrained(given.out / "run"), load_dataset(given.out / "dataset")
        scores = evaluate(model, dataset, EvaluateOptions(samples=SAMPLES), show_progress=True)
    scores.save(given.out / "scores.json", overwrite=True)
    rows = {name: scores.value(name, "voxel_r") for name in scores.rows}
    return watch.row() | {"about": {"voxel_r": rows, "n_samples": SAMPLES}}


def run_report(given: argparse.Namespace) -> dict[str, Any]:
    dataset, out = load_dataset(given.out / "dataset"), given.out / "report"
    with Watch() as watch:
        report(given.out / "run", dataset, ReportOptions(samples=SAMPLES), out=out, overwrite=True)
    return watch.row()


def run_synthesize(given: argparse.Namespace) -> dict[str, Any]:
    """Tokens come from a bank of 64 images, so that no encoder's time is counted."""
    numbers = range(given.synthesized)
    folder, out = given.out / "pictures", given.out / "trials.npy"
    for number in numbers:
        picture(folder, number)
    model = SynBrain.from_pretrained(given.out / "run", encoder=bank_encoder())
    with Watch() as watch:
        files = [folder / f"{number:06d}.png" for number in numbers]
        synthesize(model, files, SynthesizeOptions(samples=1), out=out, overwrite=True, show_progress=True)
    size = out.stat().st_size
    out.unlink()
    about = {"images": len(numbers), "bytes": size, "images_per_second": len(numbers) / watch.seconds}
    return watch.row() | {"about": about | {"images_per_cpu_second": len(numbers) / watch.cpu}}


def run_adapt(given: argparse.Namespace) -> dict[str, Any]:
    second, voxels = given.out / "second", round(SECOND_VOXELS * given.voxels)
    if not second.exists():
        first = given.images + given.test_images  # pictures that the first subject has not seen
        make(second, SECOND_IMAGES, SECOND_TEST, voxels, seed=1, first=first)
    model = SynBrain.from_pretrained(given.out / "run")
    with Watch() as watch:
        adapted = adapt(
            model, load_dataset(second), AdaptOptions(budget="1h", by="images"), show_progress=True
        )
    assert adapted.config.adaptation is not None
    assert adapted.report is not None
    about = adapted.config.adaptation.model_dump(mode="json") | adapted.report.model_dump(mode="json")
    return watch.row() | {"about": about}


def run_law(given: argparse.Namespace) -> dict[str, Any]:
    """Three smaller fits of the same subject; with the part linear they give both exponents."""
    train, _ = split_pairs(*opened(given.out / "dataset"))
    n, v = train.n_images, train.n_voxels
    sizes, total = {}, {"seconds": 0.0, "cpu_seconds": 0.0, "own": 0, "resident": 0}
    for images, voxels in ((n // 2, v // 4), (n, v // 4), (n // 2, v)):
        some = train.take(np.arange(images))
        some = replace(some, responses=np.ascontiguousarray(train.responses[:, :: max(1, v // voxels)]))
        with Watch() as watch:
            fit = fitted(some, given)
        cost = linear_path_cost(images, some.n_voxels, some.tokens.shapes, LinearPathConfig())
        row = watch.row(fit.gflop)
        row |= {"foretold_gflop": cost.total, "foretold_own": cost.memory}
        row["foretold_seconds"] = cost.seconds(row["rate"])
        sizes[f"{images} x {some.n_voxels}"] = row
        print(images, some.n_voxels, row, flush=True)
        total = {k: max(x, row[k]) if k in ("own", "resident") else x + row[k] for k, x in total.items()}
    return total | {"threads": row["threads"], "load": row["load"], "about": sizes}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "make": run_make,
    "linear": run_linear,
    "noise": run_noise,
    "train": run_train,
    "evaluate": run_evaluate,
    "report": run_report,
    "synthesize": run_synthesize,
    "adapt": run_adapt,
    "law": run_law,
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
    parser.add_argument("--synthesized", type=int, default=73000, help="images of the part synthesize")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument(
        "--without-networks", action="store_true", help="train the linear path and noise alone"
    )
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
            names = ("out", "device", "images", "test_images", "voxels", "synthesized")
            settings = [
                word for name in names for word in (f"--{name.replace('_', '-')}", getattr(given, name))
            ]
            settings += ["--without-networks"] * given.without_networks
            command = [sys.executable, __file__, *settings, "--parts", part, "--here"]
            subprocess.run([*map(str, command)], check=True)
    if not given.here:
        write_text(given.out / "table.md", table(given.out))
        print(table(given.out))


if __name__ == "__main__":
    main()
