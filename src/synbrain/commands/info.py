"""``synbrain info``: what a dataset, a run or a training configuration holds and needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synbrain.commands import train as train_command
from synbrain.commands.parsing import parse_words
from synbrain.data.dataset import DATASET_JSON, Dataset, load_dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens, stored_encoders
from synbrain.files import read_json
from synbrain.model.folder import CONFIG
from synbrain.training.config import TrainConfig
from synbrain.training.cost import ATTAINED, BATCHES, matmul_rate, training_cost
from synbrain.training.overrides import overridden
from synbrain.training.recipes import recipe as recipe_called

# NSD's subject 1, where no dataset is named: training trials and nsdgeneral voxels.
NSD_TRIALS, NSD_VOXELS = 27_000, 15_724


def info(path: Path | None = None, /, *, config: Path | None = None) -> None:
    """Say what a dataset or a run holds; with --config, what a training will take.

    Args:
        path: a dataset folder or a run folder.
        config: a training's YAML file, as `synbrain train --config` reads; with a dataset, for its size.
    """
    if config is not None:
        print(describe_training(config, load_dataset(path) if path is not None else None))
    elif path is None:
        raise SynBrainError("nothing to look at", "name a dataset or run folder, or pass --config FILE")
    elif (path / DATASET_JSON).exists():
        print(describe_dataset(load_dataset(path)))
    elif (path / CONFIG).exists():
        print(describe_run(path))
    else:
        raise SynBrainError(
            f"{path} is neither a dataset nor a run",
            "name a folder that `synbrain prepare` or `synbrain train` wrote",
        )


def describe_dataset(dataset: Dataset) -> str:
    """Counts, unit, splits, repeats, ROIs, reliability, tokens, sizes."""
    about, trials = dataset.info, dataset.trials
    repeats = np.bincount(trials["image"].to_numpy(dtype=np.int64), minlength=dataset.n_images)
    lines = [
        f"dataset    {about.name} (subject {about.subject}) in {dataset.path}",
        f"responses  {about.n_trials} trials x {about.n_voxels} voxels, {about.unit}, "
        f"{_size(dataset.responses.nbytes)} on disk",
        f"sessions   {trials['session'].nunique()}",
    ]
    for split in ("train", "test"):
        images = dataset.image_rows(split)
        counts = repeats[images]
        told = f", {counts.min()} to {counts.max()} trials each" if len(images) else ""
        n_trials = int((trials["split"] == split).sum())
        lines.append(f"{split:<10} {len(images)} images, {n_trials} trials{told}")
    lines.append(f"stimuli    {about.stimuli.kind}: {dataset.stimulus_path()}")
    lines += _space_lines(dataset)
    encoders = stored_encoders(dataset)
    for name in encoders:
        tokens = open_tokens(dataset, name)
        layers = ", ".join(f"{layer} {n} x {dim}" for layer, (n, dim) in tokens.shapes.items())
        size = sum(array.nbytes for array in tokens.layers.values())
        lines.append(f"tokens     {name}: {layers}; {_size(size)} on disk")
    if not encoders:
        lines.append(f"tokens     none: run `synbrain features {dataset.path}`")
    n_train = len(dataset.image_rows("train"))
    lines.append(
        f"memory     arrays are mapped; the repeat means of the training images take "
        f"{_size(8 * n_train * about.n_voxels)} while a linear model is fitted"
    )
    lines += [f"note       {note}" for note in about.provenance.get("notes") or []]
    return "\n".join(lines)


def _space_lines(dataset: Dataset) -> list[str]:
    space = dataset.space
    grid = f", grid {' x '.join(map(str, space.shape))}" if space.shape else ""
    lines = [f"space      {space.kind}{grid}"]
    for name, atlas in space.atlases.items():
        rois = space.roi_masks(name)
        sizes = ", ".join(f"{roi.partition('/')[2]} {mask.sum()}" for roi, mask in rois.items())
        lines.append(f"  {name}: {sizes or 'no labelled voxels'} (from {atlas.source})")
    if space.ncsnr is not None:
        at = np.quantile(np.nan_to_num(space.ncsnr), [0.05, 0.25, 0.5, 0.75, 0.95])
        shown = ", ".join(f"{value:.2f}" for value in at)
        lines.append(f"ncsnr      {shown} at 5, 25, 50, 75 and 95 % of voxels")
    return lines


def describe_run(path: Path) -> str:
    """Recipe, encoder, parts with their sizes, subjects, scores."""
    from synbrain.model.synbrain import SynBrain  # loads torch networks: only for runs

    model = SynBrain.from_pretrained(path)  # first, as it checks every checksum
    config = read_json(path / CONFIG)
    layers = ", ".join(f"{name} {n} x {dim}" for name, (n, dim) in config["token_shapes"].items())
    lines = [
        f"run        {path}, recipe {config['recipe']}",
        f"encoder    {config['encoder']} ({layers})",
    ]
    for part in sorted(p for p in path.iterdir() if p.is_dir() and p.name != "training"):
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        lines.append(f"part       {part.name}: {_size(size)}")
    for network in ("vae", "mapper"):
        module = getattr(model, network)
        if module is not None:
            lines.append(
                f"{network:<10} {sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters"
            )
    for name, subject in model.subjects.items():
        lines.append(f"subject    {name}: {subject.n_voxels} voxels, {subject.unit}")
    if (path / "scores.json").exists():
        said = read_json(path / "scores.json")
        for row, scores in said.get("scores", {}).items():
            shown = {key: scores[key] for key in ("voxel_r", "pearson", "mse") if key in scores}
            numbers = ", ".join(f"{k} {v:.3f}" for k, v in shown.items() if isinstance(v, (int, float)))
            lines.append(f"score      {row}: {numbers}")
    else:
        lines.append(f"score      none: run `synbrain evaluate {path} DATASET`")
    return "\n".join(lines)


def training_config(path: Path) -> tuple[TrainConfig, str]:
    """The training that a YAML file for ``synbrain train`` resolves to, and its encoder.

    Raises:
        SynBrainError: where the file is missing or a value is refused.
    """
    if not path.is_file():
        raise SynBrainError(f"{path} is missing", "give a YAML file with options of `synbrain train`")
    given = parse_words(train_command.train, "train", ["-", "--out", "-", "--config", str(path)])
    own = {key: value for key, value in given.items() if key in TrainConfig.model_fields}
    chosen = recipe_called(given["recipe"], preset=given.get("preset"))
    encoder = str(given["encoder"])
    return overridden(chosen, {k: v for k, v in own.items() if k not in ("recipe", "preset")}), encoder


def describe_training(path: Path, dataset: Dataset | None = None) -> str:
    """Parameters, GFLOP per step, memory per batch size and the longest time of a training."""
    config, encoder = training_config(path)
    tokens, n_trials, n_voxels = None, NSD_TRIALS, NSD_VOXELS
    source = "NSD subject 1 (name a dataset for its own size)"
    if dataset is not None:
        source, n_voxels = str(dataset.path), dataset.n_voxels
        n_trials = len(dataset.trial_rows("train"))
        if encoder in stored_encoders(dataset):
            shapes = open_tokens(dataset, encoder).shapes
            tokens = shapes[config.network_layer or list(shapes)[-1]]
    cost = training_cost(config, n_voxels, n_trials, tokens)
    rate = matmul_rate()
    lines = [
        f"recipe     {config.recipe}, preset {config.preset}",
        f"data       {n_trials} trials x {n_voxels} voxels: {source}",
    ]
    for stage in ("vae", "mapper"):
        millions = cost.parameters[stage] / 1e6
        lines.append(
            f"{stage:<10} {millions:.1f} M parameters; {cost.step_gflop(stage):,.1f} GFLOP a step of "
            f"{cost.batch[stage]}, at most {cost.steps[stage]:,} steps"
        )
        sizes = sorted({*BATCHES, cost.batch[stage]})
        held = ", ".join(f"{n}: {_size(cost.memory(stage, n))}" for n in sizes)
        lines.append(f"  memory by batch size (fp32)  {held}")
        lines.append(f"  time at most {_time(cost.seconds(stage, rate))}")
    lines.append(
        f"times are for this machine's CPU at {ATTAINED:.0%} of its {rate:,.0f} GFLOP/s in fp32 products, "
        "without early stopping; linear path and noise come on top"
    )
    return "\n".join(lines)


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.2f} {unit}"
        n_bytes /= 1000
    raise AssertionError


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
