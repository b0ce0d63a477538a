"""``synbrain info``: what a dataset, a run, a folder of them or a training configuration holds and needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.commands.describe import (
    CONFIG,
    DATASET_JSON,
    describe_dataset,
    describe_folder,
    describe_model,
    describe_recordings,
    describe_responses,
    size_text,
)
from synbrain.describe import counted
from synbrain.errors import SynBrainError

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.training.options import TrainOptions

NSD_TRIALS = 27_000  # training trials of NSD's subject 1, where no dataset is named


def info(path: Path | None = None, /, *, config: Path | None = None) -> None:
    """Say what a folder or file of synbrain's holds; with --config, what a training will take.

    Args:
        path: a dataset, a run, a folder that holds some (such as what `synbrain demo` left), a file of
            responses, or recordings that are no dataset yet.
        config: a training's YAML file, as `synbrain train --config` reads; with a dataset, for its size.
    """
    if config is not None:
        print(describe_training(config, _dataset(path) if path is not None else None))
        return
    if path is None:
        raise SynBrainError("nothing to look at", "name a dataset or run folder, or pass --config FILE")
    if (path / DATASET_JSON).exists():
        print(describe_dataset(_dataset(path)))
        return
    if (path / CONFIG).exists():
        print(describe_model(path))
        return
    kinds = (describe_folder, describe_recordings) if path.is_dir() else (describe_responses,)
    inside = next((text for describe in kinds if (text := describe(path))), None)
    if inside is None:
        raise SynBrainError(
            f"{path} is neither a dataset nor a run, and holds none",
            "name a folder that `synbrain prepare`, `train` or `demo` wrote; docs/guide/layouts.md says how "
            "recordings in other layouts become a dataset",
        )
    print(inside)


def _dataset(path: Path) -> Dataset:
    from synbrain.data.dataset import load_dataset

    return load_dataset(path)


def training_options(path: Path) -> TrainOptions:
    """What a YAML file for ``synbrain train`` says.

    Raises:
        SynBrainError: where the file is missing or a value is refused.
    """
    if not path.is_file():
        raise SynBrainError(f"{path} is missing", "give a YAML file with options of `synbrain train`")
    from synbrain.commands.parsing import prepare_call
    from synbrain.commands.registry import COMMANDS

    call = prepare_call(COMMANDS["train"], "train", ["-", "--out", "-", "--config", str(path)])
    options: TrainOptions = call.typed["options"]
    return options


def describe_training(path: Path, dataset: Dataset | None = None) -> str:
    """Parameters, GFLOP per step, memory per batch size and the longest time of a training."""
    from synbrain.data.space import UNIT_NAMES
    from synbrain.prepare.nsd.layout import NSDGENERAL_VOXELS
    from synbrain.training.cost import ATTAINED, BATCHES, matmul_rate, training_cost

    options = training_options(path)
    config, tokens, shapes, n_images = options.config(), None, None, None
    n_trials, n_voxels, units = NSD_TRIALS, NSDGENERAL_VOXELS[0], UNIT_NAMES["volume"]
    source = "NSD subject 1 (name a dataset for its own size)"
    if dataset is not None:
        source, n_voxels, units = str(dataset.path), dataset.n_voxels, dataset.space.unit_words
        dataset, shapes = _opened(dataset, options)
        n_trials, n_images = len(dataset.trial_rows("train")), len(dataset.image_rows("train"))
        if shapes is None:
            source += f" (no tokens of {options.encoder} there: sizes of the preset's are taken)"
        else:
            tokens = shapes[config.network_layer or list(shapes)[-1]]
    cost = training_cost(config, n_voxels, n_trials, tokens, n_images=n_images, layers=shapes)
    rate = matmul_rate()
    lines = [
        f"recipe     {config.recipe}, preset {config.preset}",
        f"data       {counted(n_trials, 'trial')} x {counted(n_voxels, *units)}: {source}",
    ]
    if cost.linear is not None:
        lines += [
            f"linear     {cost.linear.total:,.0f} GFLOP",
            f"  memory {size_text(cost.linear.memory)}, scratch files {size_text(cost.linear.scratch)}",
            f"  time about {_time(cost.linear.seconds(rate))}",
        ]
    for stage in ("vae", "mapper") if options.networks else ():
        millions = cost.parameters[stage] / 1e6
        lines.append(
            f"{stage:<10} {millions:.1f} M parameters; {cost.step_gflop(stage):,.1f} GFLOP a step of "
            f"{cost.batch[stage]}, at most {cost.steps[stage]:,} steps"
        )
        sizes = sorted({*BATCHES, cost.batch[stage]})
        memory = ", ".join(f"{n}: {size_text(cost.memory(stage, n))}" for n in sizes)
        lines.append(f"  memory by batch size (fp32)  {memory}")
        lines.append(f"  time at most {_time(cost.seconds(stage, rate))}")
    lines.append(
        f"times of the networks are for this machine's CPU at {ATTAINED:.0%} of its {rate:,.0f} GFLOP/s in "
        "fp32 products, without early stopping; trial noise comes on top"
    )
    return "\n".join(lines)


def _opened(dataset: Dataset, options: TrainOptions) -> tuple[Dataset, dict[str, tuple[int, int]] | None]:
    """What `train` would open: the images, and layer -> (n_tokens, dim) of their tokens; None: no tokens."""
    from synbrain.features.joint import encoders_of
    from synbrain.features.store import open_untuned, stored_encoders
    from synbrain.features.tuned_folder import encoder_name

    names = {encoder_name(one) for one in encoders_of(options.encoder)}
    if not names <= set(stored_encoders(dataset)):
        return dataset, None
    opened, tokens = open_untuned(dataset, options.encoder, options.layers)
    return opened, tokens.shapes


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
