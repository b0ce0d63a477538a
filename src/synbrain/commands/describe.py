"""What a folder holds, as text: a dataset, a run, or what a demo left. Only headers are read, so no torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import MANIFEST, read_json, verify_manifest
from synbrain.model.output_names import described_by

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.data.space import SpaceKind, VoxelSpace

CONFIG, SCORES, DATASET_JSON = "config.json", "scores.json", "dataset.json"
RECORDINGS = ("*_events.tsv", "*_betas.*", "*betas*.gii", "*betas*.mg[hz]", "TYPED_*")
WHAT_IS_INSIDE = {
    "report.html": "page of scores and pictures: open it in a browser",
    "scores.json": "scores on test images",
    "table.md": "table of scores",
    "figures": "pictures of the report",
    "decoded": "decoded pictures: see decoded.png",
    "new-images": "pictures that no one saw",
    "simulated-nsd": "simulated recordings in NSD's layout",
}


def describe_folder(folder: Path) -> str | None:
    """The datasets, runs and results that lie in a folder, one line each; None where there are none."""
    lines = []
    for path in sorted(folder.iterdir()):
        if (path / DATASET_JSON).is_file():
            about = read_json(path / DATASET_JSON)
            size = f"{counted(about['n_trials'], 'trial')} x {_units(path, about['n_voxels'])}"
            lines.append(f"dataset    {path}: {size}, subject {about['subject']}")
        elif (path / CONFIG).is_file() and (path / MANIFEST).is_file():
            lines.append(_model_line(path, read_json(path / CONFIG)))
        elif path.name in WHAT_IS_INSIDE:
            lines.append(f"{'folder' if path.is_dir() else 'file':<10} {path}: {WHAT_IS_INSIDE[path.name]}")
        elif path.suffix == ".json":
            lines += _response_lines(path)
    known = any(
        line.startswith(("dataset", "run", "decoder", "encoder", "synthetic", "expected")) for line in lines
    )
    if not known:
        return None
    if (folder / SCORES).is_file():
        lines += _score_lines(read_json(folder / SCORES))
    return "\n".join([*lines, f"more       synbrain info {folder}/NAME"])


def _units(folder: Path, n: int) -> str:
    """The columns of a dataset or of a run's subject, in the word that its space has for them."""
    from synbrain.data.space import SPACE_JSON, UNIT_NAMES

    kind: SpaceKind = read_json(folder / "space" / SPACE_JSON)["kind"]
    return counted(n, *UNIT_NAMES[kind])


def _model_line(path: Path, about: Any) -> str:
    """A run, a decoder or a tuned encoder: what has a configuration and checksums."""
    subjects = ", ".join(about.get("subjects", []))
    if "recipe" in about:
        return f"run        {path}: recipe {about['recipe']}, subjects {subjects}"
    if is_decoder(about):
        return f"decoder    {path}: method {about['kind']}, subjects {subjects}"
    return f"encoder    {path}: see its README.md"


def is_decoder(about: Any) -> bool:
    """Whether the content of a ``config.json`` is a decoder's."""
    return "kind" in about and "targets" in about


def describe_model(path: Path) -> str:
    """A run or a decoder, after every checksum was compared.

    Raises:
        SynBrainError: where it is not finished, or a file was altered.
    """
    if not (path / MANIFEST).exists():
        raise SynBrainError(
            f"{path} is not a finished run (no {MANIFEST})",
            "give the folder that `synbrain train --out` wrote; --resume ends a run that was cut short",
        )
    verify_manifest(path)
    return describe_decoder(path) if is_decoder(read_json(path / CONFIG)) else describe_run(path)


def describe_decoder(path: Path) -> str:
    """Method, tokens, subjects and training."""
    about = read_json(path / CONFIG)
    source = about["targets"]["source"]
    lines = [
        f"decoder    {path}, method {about['kind']}",
        f"tokens     {source['encoder']}, layer {source['layer']}",
    ]
    for name, subject in about["subjects"].items():
        lines.append(f"subject    {name}: {counted(subject['n_voxels'], 'voxel')}, {subject['unit']}")
    for title in ("training", "validation", "last_fit"):
        if about.get(title):
            shown = ", ".join(f"{key} {_short(value)}" for key, value in about[title].items())
            lines.append(f"{title.replace('_', ' '):<10} {shown}")
    if about["synthetic"]:
        lines.append("data       synthetic trials besides measured ones")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _response_lines(sidecar: Path) -> list[str]:
    """One line a file of responses that ``sidecar`` describes; none where it is another JSON file."""
    files = [path for path in described_by(sidecar) if path.exists()]
    if not files:
        return []
    about = read_json(sidecar)
    shown = ", ".join(f"{key} {about[key]}" for key in ("shape", "unit", "subject", "seed") if key in about)
    kind = "expected" if about.get("kind") == "prediction" else "synthetic"
    return [f"{kind:<10} {path}: {shown}" for path in files]


def describe_responses(path: Path) -> str | None:
    """A file of expected or synthetic responses, by what lies beside it; None where it is none."""
    beside = [line for sidecar in sorted(path.parent.glob("*.json")) for line in _response_lines(sidecar)]
    return next((line for line in beside if f" {path}: " in line), None)


def describe_recordings(folder: Path) -> str | None:
    """Recordings that `synbrain prepare` can read, and how; None where nothing looks like any."""
    if (folder / "nsddata").is_dir():
        subjects = sorted(path.name[-2:] for path in (folder / "nsddata" / "ppdata").glob("subj[0-9][0-9]"))
        kind, call = "NSD's layout" + (f", subjects {' '.join(subjects)}" if subjects else ""), "prepare nsd"
        more = f" --subject {int(subjects[0])}" if subjects else " --subject 1"
    elif (folder / "trials.csv").is_file():
        kind, call, more = "a table with an array", "prepare table", ""
    elif any(next(folder.rglob(pattern), None) for pattern in RECORDINGS):
        kind, call, more = "betas in BIDS or of GLMsingle", "prepare bids", " --images FOLDER"
    else:
        return None
    return f"recordings {folder}: {kind}, no dataset yet\nnext       synbrain {call} {folder} OUT{more}"


def describe_dataset(dataset: Dataset) -> str:
    """Counts, unit, splits, repeats, ROIs, reliability, tokens, sizes."""
    import numpy as np

    from synbrain.features.store import open_tokens, stored_encoders

    about, trials = dataset.info, dataset.trials
    repeats = np.bincount(trials["image"].to_numpy(dtype=np.int64), minlength=dataset.n_images)
    lines = [
        f"dataset    {about.name} (subject {about.subject}) in {dataset.path}",
        f"responses  {counted(about.n_trials, 'trial')} x "
        f"{counted(about.n_voxels, *dataset.space.unit_words)}, {about.unit}, "
        f"{size_text(dataset.responses.nbytes)} on disk",
        f"sessions   {trials['session'].nunique()}",
    ]
    if about.synthetic is not None:
        lines.insert(2, f"synthetic  {about.synthetic}")
    for split in ("train", "test"):
        images = dataset.image_rows(split)
        counts = repeats[images]
        repeated = f", {_span(counts)} trials each" if len(images) else ""
        n_trials = int((trials["split"] == split).sum())
        lines.append(f"{split:<10} {counted(len(images), 'image')}, {counted(n_trials, 'trial')}{repeated}")
    lines.append(f"stimuli    {about.stimuli.kind}: {dataset.stimulus_path()}")
    lines += _space_lines(dataset)
    encoders = stored_encoders(dataset)
    for name in encoders:
        tokens = open_tokens(dataset, name)
        layers = ", ".join(f"{layer} {n} x {dim}" for layer, (n, dim) in tokens.shapes.items())
        size = sum(array.nbytes for array in tokens.layers.values())
        lines.append(f"tokens     {name}: {layers}; {size_text(size)} on disk")
    if not encoders:
        lines.append(f"tokens     none: run `synbrain features {dataset.path}`")
    n_train = len(dataset.image_rows("train"))
    lines.append(
        f"memory     arrays are mapped; the repeat means of the training images take "
        f"{size_text(8 * n_train * about.n_voxels)} while a linear model is fitted"
    )
    lines += [f"note       {note}" for note in about.provenance.get("notes") or []]
    return "\n".join(lines)


def _span(counts: Any) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _space_lines(dataset: Dataset) -> list[str]:
    import numpy as np

    from synbrain.metrics.ceiling import LEAST_FREEDOM

    space = dataset.space
    lines = [f"space      {space.kind}{_grid(space)}"]
    for name, atlas in space.atlases.items():
        rois = space.roi_masks(name)
        sizes = ", ".join(f"{roi.partition('/')[2]} {mask.sum()}" for roi, mask in rois.items())
        lines.append(f"  {name}: {sizes or f'no labelled {space.unit_names}'} (from {atlas.source})")
    if space.ncsnr is not None:
        at = np.quantile(np.nan_to_num(space.ncsnr), [0.05, 0.25, 0.5, 0.75, 0.95])
        shown = ", ".join(f"{value:.2f}" for value in at)
        lines.append(f"ncsnr      {shown} at 5, 25, 50, 75 and 95 % of {space.unit_names}")
    elif dataset.info.synthetic is None:
        again = dataset.info.n_trials - dataset.trials["image"].nunique()
        why = "no image was repeated"
        if again:
            showing = counted(again, "trial shows an image again", "trials show an image again")
            why = f"{showing}, and it takes {LEAST_FREEDOM} in one split to tell noise"
        lines.append(f"ncsnr      not known: {why}")
    return lines


def _grid(space: VoxelSpace) -> str:
    """Size of the grid that the columns lie on."""
    if not space.shape:
        return ""
    n = 0 if space.kind == "volume" else 2
    vertices, grid = " + ".join(map(str, space.shape[:n])), " x ".join(map(str, space.shape[n:]))
    mesh = f", {space.mesh or 'mesh'} of {vertices} vertices" if vertices else ""
    return mesh + (f", grid {grid}" if grid else "")


def describe_run(path: Path) -> str:
    """Recipe, encoder, parts with their sizes, subjects, scores."""
    config = read_json(path / CONFIG)
    layers = ", ".join(f"{name} {n} x {dim}" for name, (n, dim) in config["token_shapes"].items())
    lines = [
        f"run        {path}, recipe {config['recipe']}",
        f"encoder    {config['encoder']} ({layers})",
    ]
    for part in sorted(p for p in path.iterdir() if p.is_dir() and p.name != "training"):
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        lines.append(f"part       {part.name}: {size_text(size)}")
    for network in ("vae", "mapper"):
        if (path / network).is_dir():
            n_values = sum(math.prod(shape) for shape in _shapes(path / network / "model.safetensors"))
            lines.append(f"{network:<10} {n_values / 1e6:.2f} M parameters")
    for name in config["subjects"]:
        folder = path / "subjects" / name
        n_voxels = _shapes(folder / "scale.safetensors")[0][0]
        unit = read_json(folder / "subject.json")["unit"]
        lines.append(f"subject    {name}: {_units(folder, n_voxels)}, {unit}")
    if (path / SCORES).exists():
        lines += _score_lines(read_json(path / SCORES))
    else:
        lines.append(f"score      none: run `synbrain evaluate {path} DATASET`")
    return "\n".join(lines)


def _shapes(path: Path) -> list[list[int]]:
    with safe_open(path, "numpy") as file:
        return [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118


def _score_lines(scores: Any) -> list[str]:
    lines = []
    for row, values in scores.get("scores", {}).items():
        shown = {key: values[key] for key in ("voxel_r", "pearson", "mse") if key in values}
        numbers = ", ".join(f"{k} {v:.3f}" for k, v in shown.items() if isinstance(v, (int, float)))
        lines.append(f"score      {row}: {numbers or 'not known'}")
    return lines


def size_text(n_bytes: float) -> str:
    """Bytes in the unit that a person reads.

    >>> size_text(1_234_567)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.2f} {unit}"
        n_bytes /= 1000
    raise AssertionError
