"""BrainVAE and mapper beside the linear path, on one session or on several at once: where do they add?

    python benchmarks/pooled_networks.py SESSIONS... --work DIR --encoder ENCODER
        --layers block7 block10 block14 readout

For each seed the linear path of each session is fitted, then networks on what it leaves over:

  alone    on one session (`synbrain train A`)
  pooled   on all of them (`synbrain train A B C`); as published, no weight is any subject's own
  edge     on all, in coordinates that the sessions share. An edge belongs to each session, (n_units, k): the
           leading axes of what the linear paths of all sessions predict for the images of all. Trials
           enter by the posterior mean of their coordinates, predictions leave through the edge.

Their weight comes from validation images (training/shrink.py). `--without-linear` also trains each on the
responses themselves. Test images are looked at once, at the end. For diagnosis alone: the weight that test
images would choose. What is done is taken from DIR.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synbrain.arrays import Float32
from synbrain.data.dataset import load_dataset
from synbrain.features.scale import Scale
from synbrain.features.store import open_untuned
from synbrain.features.tokens import Pairs, split_pairs
from synbrain.files import read_json
from synbrain.linear.by_encoder import fit_each_encoder
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.metrics.intervals import image_weights, seed_interval, voxel_r_replicates
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.training.config import TrainConfig
from synbrain.training.networks import (
    Networks,
    Workspace,
    network_sizes,
    new_networks,
    train_networks,
    validation_split,
)
from synbrain.training.options import TrainOptions
from synbrain.training.shrink import shrink_factor
from synbrain.training.subjects import TrainingSubject, network_layer

NOISE = 1.0  # variance of a unit around its shared coordinates, in units of its variance


@dataclass(frozen=True)
class Session:
    """A session with its linear path; ``scale`` leads to units of sd."""

    subject: TrainingSubject
    test: Pairs
    fit: LinearFit
    scale: Scale

    @property
    def name(self) -> str:
        return self.subject.name

    @property
    def pairs(self) -> Pairs:
        return self.subject.pairs


@dataclass(frozen=True)
class Edge:
    """Between the units of a session (in sd) and shared coordinates.

    Attributes:
        out: (k, n_units) float32.
        into: (n_units, k) float32, the posterior mean of coordinates given responses.
    """

    out: Float32
    into: Float32


def opened(path: Path, typed: argparse.Namespace, seed: int) -> Session:
    """A session with its linear path; no image that the encoder was tuned on is among its training images."""
    dataset, tokens = open_untuned(load_dataset(path), typed.encoder, typed.layers)
    train, test = split_pairs(dataset, tokens)

    def fitted(pairs: Pairs, settings: LinearPathConfig, _: int) -> LinearFit:
        return fit_linear_path(pairs, settings, seed=seed)

    folder = typed.work / f"linear-{seed}" / dataset.info.name
    if not (folder / "folds.npy").exists():
        fit_each_encoder(train, LinearPathConfig(), fitted).save(folder)
    fit = LinearFit.load(folder)
    subject = TrainingSubject(dataset.info.name, train, dataset.space, dataset.info.unit, linear_fit=fit)
    return Session(subject, test, fit, Scale.of_trials(train))


def edges(sessions: list[Session], k: int) -> list[Edge]:
    """Axes of the linear predictions of every session for the training images of all."""
    scaled = [[s.scale.scaled(s.fit.path.predict(of.pairs.tokens)) for s in sessions] for of in sessions]
    predicted = np.concatenate([np.concatenate(row, axis=1) for row in scaled])
    variances, axes = np.linalg.eigh(np.cov(predicted, rowvar=False))
    variances, axes = variances[::-1][:k], axes[:, ::-1][:, :k]
    made, start = [], 0
    for session in sessions:
        own = axes[start : start + session.pairs.n_voxels]
        start += len(own)
        precision = own.T @ own / NOISE + np.diag(1 / np.maximum(variances, 1e-6))
        made.append(
            Edge(own.T.astype(np.float32), np.linalg.solve(precision, own.T / NOISE).T.astype(np.float32))
        )
    return made


def through(edge: Edge, session: Session, size: float) -> TrainingSubject:
    """A session whose units are shared coordinates, of mean variance 1."""

    def projected(responses: Any) -> Float32:
        return np.asarray(session.scale.scaled(responses) @ edge.into / size, dtype=np.float32)

    fit = replace(session.fit, out_of_fold=projected(session.fit.out_of_fold))
    pairs = replace(session.pairs, responses=projected(session.pairs.responses))
    return replace(session.subject, pairs=pairs, linear_fit=fit)


Part = Callable[[Pairs], Float32]  # images to the networks' part of the mean, in sd of the session's units


def trained(arm: str, sessions: list[Session], config: TrainConfig, folder: Path, k: int) -> list[Part]:
    """Networks of one arm, as a function for each session."""
    subjects = [s.subject for s in sessions]
    outs: list[Any] = [1] * len(sessions)
    if arm.startswith("edge"):
        of = edges(sessions, k)
        means = [s.scale.scaled(s.pairs.repeat_means()) @ e.into for s, e in zip(sessions, of, strict=True)]
        size = float(np.sqrt(np.mean([np.mean(m.var(axis=0)) for m in means])))
        subjects = [through(e, s, size) for s, e in zip(sessions, of, strict=True)]
        outs = [size * e.out for e in of]
        config = config.model_copy(update={"scale": "raw"})  # standardised, noise would count as much
    networks = new_networks(network_sizes(subjects[0].pairs.tokens, config), config.seed)
    fits = [None if "without" in arm else s.linear_fit for s in subjects]
    train_networks(networks, subjects, fits, config, Workspace(folder, device="cpu"), arm)
    layer = network_layer(subjects[0].pairs.tokens, config)
    return [part_of(networks, layer, s.pairs.n_voxels, out) for s, out in zip(subjects, outs, strict=True)]


def part_of(networks: Networks, layer: str, n_voxels: int, out: Any) -> Part:
    """What networks decode, led out through an edge (or nothing: 1)."""

    @torch.no_grad()
    def part(pairs: Pairs) -> Float32:
        rows = np.array_split(np.arange(pairs.n_images), max(1, pairs.n_images // 24))
        read = [torch.from_numpy(pairs.tokens.read(layer, of)) for of in rows]
        decoded = [networks.vae.decode(networks.mapper(x), n_voxels).float().numpy() for x in read]
        return np.asarray(np.concatenate(decoded) @ out if np.ndim(out) else np.concatenate(decoded))

    return part


def row_of(session: Session, part: Part, config: TrainConfig, arm: str, weights: Any) -> dict[str, Any]:
    """Scores on test images; the weight of the networks is that of validation images."""
    scale, without = session.scale, "without" in arm
    _, held_out = validation_split(session.pairs, config.validation_fraction, config.seed)
    validation = session.pairs.take(held_out)
    left = scale.scaled(validation.repeat_means())
    left = left if without else left - scale.scaled(session.fit.out_of_fold[held_out])
    shrink = np.ones(1, np.float32) if without else shrink_factor(left, part(validation), config.shrink)
    measured, networks = scale.scaled(session.test.repeat_means()), part(session.test)
    linear = scale.scaled(session.fit.path.predict(session.test.tokens))
    residual, mean = measured - linear, shrink * networks + (0 if without else linear)
    chosen = float(np.clip((networks * residual).sum() / np.maximum((networks**2).sum(), 1e-9), 0, None))
    return {
        "session": session.name, "arm": arm, "seed": config.seed, "weight": float(shrink.mean()),
        "linear": r_of(linear, measured), "with": r_of(mean, measured),
        "of_residual": r_of(networks, residual), "test_weight": chosen,
        "with_test_weight": r_of(linear + chosen * networks, measured),
        "size": float(networks.std() / residual.std()),
        "replicates": (voxel_r_replicates(weights, mean, measured)
                       - voxel_r_replicates(weights, linear, measured)).round(5).tolist(),
    }  # fmt: skip


def r_of(predicted: Float32, measured: Float32) -> float:
    """Mean over units of Pearson across images."""
    return mean_defined(voxel_r(predicted, measured))[0] or 0.0


def run(typed: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """All arms with one seed; each is kept on disk."""
    sessions = [opened(path, typed, seed) for path in typed.sessions]
    arms = [f"{arm}{more}" for more in ("", ", without linear") for arm in typed.arms]
    rows = []
    for arm in arms[: None if typed.without_linear else len(typed.arms)]:
        each = [[s] for s in sessions] if arm.startswith("alone") else [sessions]
        for group in each:
            file = (
                typed.work / "rows" / f"{arm}-{seed}-{'-'.join(s.name for s in group)}.json".replace(" ", "")
            )
            if not file.exists():
                started = time.process_time()
                options = TrainOptions(
                    encoder=typed.encoder, seed=seed, preset=typed.preset, network_layer=typed.network_layer
                )
                parts = trained(arm, group, config := options.config(), file.with_suffix(""), typed.k)
                weights = [image_weights(s.test.n_images, 1000, 0) for s in group]
                made = [row_of(s, p, config, arm, w) for s, p, w in zip(group, parts, weights, strict=True)]
                made[0]["cpu_seconds"] = round(time.process_time() - started)
                file.write_text(json.dumps(made))
                for row in made:
                    print({k: v for k, v in row.items() if k != "replicates"}, flush=True)
            rows += read_json(file)
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """Means over seeds; intervals of the gain over test images (mean over seeds) and over seeds."""
    columns = ["session", "networks", "linear", "with networks", "gain [images] [seeds]", "weight",
               "r with what is left over", "weight and gain that test images would choose"]  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for key in dict.fromkeys((row["session"], row["arm"]) for row in rows):
        of = [row for row in rows if (row["session"], row["arm"]) == key]
        mean = {k: float(np.mean([row[k] for row in of])) for k in of[0] if isinstance(of[0][k], float)}
        gains = np.array([row["with"] - row["linear"] for row in of])
        low, high = np.quantile(np.mean([row["replicates"] for row in of], axis=0), [0.025, 0.975])
        seeds = seed_interval(gains) or (np.nan, np.nan)
        lines.append(
            f"| {key[0]} | {key[1]} | {mean['linear']:.3f} | {mean['with']:.3f} | {gains.mean():+.4f} "
            f"[{low:+.4f}, {high:+.4f}] [{seeds[0]:+.4f}, {seeds[1]:+.4f}] | {mean['weight']:.2f} | "
            f"{mean['of_residual']:.3f} | {mean['test_weight']:.2f}, "
            f"{mean['with_test_weight'] - mean['linear']:+.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sessions", nargs="+", type=Path, help="datasets with tokens")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--network-layer")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=["alone", "pooled", "edge"])
    parser.add_argument("--k", type=int, default=64, help="shared coordinates")
    parser.add_argument("--without-linear", action="store_true")
    typed = parser.parse_args()
    (typed.work / "rows").mkdir(parents=True, exist_ok=True)
    print(summary([row for seed in range(typed.seeds) for row in run(typed, seed)]))


if __name__ == "__main__":
    main()
