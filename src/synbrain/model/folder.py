"""A run on disk: one folder of JSON and safetensors that loads alone.

::

    RUN/
      config.json         recipe, encoder with digest and layers, subjects
      vae/ mapper/        config.json + model.safetensors, where the recipe has them
      subjects/NAME/      subject.json, scale.safetensors, space/, linear/, held_out/, noise/
      pictures.safetensors  marks and thumbnails of images that it was trained on or kept from
      validation.json     figures on held-out training images, where it was trained here
      scores.json         scores on test images, where it was evaluated
      README.md           model card
      checksums.json      SHA-256 of every file above but the scores and the card
      training/           logs and checkpoints, where the run is still to be resumed
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file, save_file

from synbrain.data.known_pictures import PICTURES, KnownPictures
from synbrain.errors import SynBrainError
from synbrain.files import (
    MANIFEST,
    atomic_path,
    beside,
    digest,
    new_folder,
    read_json,
    verify_manifest,
    write_json,
    write_manifest,
    write_text,
)
from synbrain.model.card import model_card
from synbrain.model.parts import RUN_FORMAT, RunConfig, RunParts, SubjectPart
from synbrain.model.report import TrainingReport
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig

CONFIG, WEIGHTS, CARD, SCORES = "config.json", "model.safetensors", "README.md", "scores.json"
# of scores.json; its other entries say how they were measured
RESULTS = {"targets", "scores", "intervals", "differences", "rois", "notes"}
REPORT = "validation.json"
DEMO = "synbrain/demo"  # a run of a simulated subject, inside the package
KEPT = {"training", SCORES}  # what a new save leaves in place
Model = TypeVar("Model", bound=BaseModel)


def save_run(
    folder: Path, parts: RunParts, *, overwrite: bool = False, scores: dict[str, Any] | None = None
) -> None:
    """Write a run; it is built beside ``folder`` and moved in when it is whole.

    ``folder/training`` stays. Scores of an older model that stood there are dropped.

    Raises:
        SynBrainError: where ``folder`` holds anything else and ``overwrite`` is not set.
    """
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    is_free = folder.is_dir() and there <= KEPT
    with new_folder(folder, overwrite or is_free, inherits=["training"]) as building:
        files = [CONFIG]
        config = parts.config.model_dump(mode="json") | {"subjects": list(parts.subjects)}
        write_json(building / CONFIG, config)
        for name, module in (("vae", parts.vae), ("mapper", parts.mapper)):
            if module is not None:
                files += [f"{name}/{file}" for file in _save_module(building / name, module)]
        for name, subject in parts.subjects.items():
            written = subject.save(building / "subjects" / name)
            files += [f"subjects/{name}/{file}" for file in written]
        if parts.report is not None:
            write_json(building / REPORT, parts.report.model_dump(mode="json"))
            files.append(REPORT)
        if parts.known_pictures.marks:
            parts.known_pictures.save(building / PICTURES)
            files.append(PICTURES)
        if scores is not None:
            write_json(building / SCORES, scores)
        write_text(building / CARD, model_card(parts, scores))
        write_manifest(building, files)


def _save_module(folder: Path, module: BrainVAE | Mapper) -> list[str]:
    folder.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as partial:
        save_file(tensors, partial)
    write_json(folder / CONFIG, module.config.model_dump(mode="json"))
    return [CONFIG, WEIGHTS]


def load_run(folder: Path, device: str | torch.device = "cpu") -> RunParts:
    """Read a run that :func:`save_run` wrote, after checking every checksum.

    Raises:
        SynBrainError: where a file is missing or was altered, or another version wrote the run.
    """
    if not (folder / CONFIG).exists() or not (folder / MANIFEST).exists():
        raise SynBrainError(
            f"{folder} is not a finished run (no {CONFIG} with {MANIFEST})",
            "give the folder that `synbrain train --out` wrote; --resume ends a run that was cut short",
        )
    verify_manifest(folder)
    written = read_json(folder / CONFIG)
    names = written.pop("subjects", [])
    if written.get("format") != RUN_FORMAT:
        raise SynBrainError(
            f"{folder} has format {written.get('format')}, this version reads {RUN_FORMAT}",
            f"make it again: `synbrain train DATASET --out {folder} --overwrite` or `import-reference`",
        )
    config = _validated(RunConfig, written, folder / CONFIG)
    subjects = {name: SubjectPart.load(folder / "subjects" / name) for name in names}
    vae = mapper = None
    if (folder / "vae").is_dir():
        vae = BrainVAE(_validated(BrainVAEConfig, read_json(folder / "vae" / CONFIG), folder / "vae"))
        _load_weights(vae, folder / "vae" / WEIGHTS, device)
    if (folder / "mapper").is_dir():
        mapper = Mapper(_validated(MapperConfig, read_json(folder / "mapper" / CONFIG), folder / "mapper"))
        _load_weights(mapper, folder / "mapper" / WEIGHTS, device)
    report = None
    if (folder / REPORT).exists():
        report = _validated(TrainingReport, read_json(folder / REPORT), folder / REPORT)
    return RunParts(config, subjects, vae, mapper, report, KnownPictures.load(folder / PICTURES))


def _validated(kind: type[Model], content: Any, path: Path) -> Model:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise SynBrainError(f"{path} is not valid ({error})", "copy the run again") from error


def _load_weights(module: torch.nn.Module, path: Path, device: str | torch.device) -> None:
    try:
        module.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise SynBrainError(f"{path} does not fit its config ({error})", "copy the run again") from error
    module.to(device).eval()


def run_digest(folder: Path) -> str:
    """Digest of everything that a run's output depends on: that of its manifest."""
    return digest(folder / MANIFEST)


def refresh_card(folder: Path, scores: dict[str, Any], *, replace: bool = True) -> str:
    """Put ``scores`` into ``scores.json`` of a run and into its card, or beside read-only storage.

    Scores are worth more than the card: where neither can be written, that is told and nothing raised.

    Args:
        folder: of the run.
        scores: content of ``scores.json``.
        replace: scores that were measured on other data or in another way; otherwise those are kept.

    Returns:
        One line: where they were written (in ``folder`` or in :func:`synbrain.files.beside`), or why not.
    """
    parts = load_run(folder)
    target = beside(folder)
    before = _measured_otherwise(target / SCORES, scores)
    if before and not replace:
        return f"{target / SCORES} keeps the scores {before}; `synbrain evaluate` replaces them"
    try:
        write_json(target / SCORES, scores)
        write_text(target / CARD, model_card(parts, scores))
    except SynBrainError as error:
        return f"the scores are not in the run's {SCORES} and {CARD}: {error}"
    replaced = f" (before: the scores {before})" if before else ""
    return f"scores and card -> {target / SCORES}, {target / CARD}{replaced}"


def _measured_otherwise(path: Path, scores: dict[str, Any]) -> str:
    """What scores at ``path`` were measured on, where that is not what ``scores`` were; else empty.

    Entries that one of the two lacks, as earlier versions wrote fewer, make no difference. Scores of a run
    that stood here before are worth nothing to this one.
    """
    try:
        earlier = read_json(path)
    except (SynBrainError, OSError):  # nothing, or nothing that can be read
        return ""
    if not isinstance(earlier, dict) or not isinstance(earlier.get("scores"), dict):
        return ""
    ways = (earlier.keys() & scores.keys()) - RESULTS
    if "run_digest" in ways and earlier["run_digest"] != scores["run_digest"]:
        return ""
    rows = ", ".join(earlier["scores"])
    if all(earlier[way] == scores[way] for way in ways) and rows == ", ".join(scores.get("scores", [])):
        return ""
    return (
        f"of {earlier.get('n_test_images', '?')} test images of {earlier.get('dataset', '?')} with "
        f"{earlier.get('n_samples', '?')} trials an image, seed {earlier.get('seed', '?')}, rows {rows}"
    )


def demo_dataset() -> Path:
    """Recordings of the simulated subject of ``synbrain/demo``, which come with the package."""
    return Path(str(files("synbrain"))) / "demo" / "dataset"


def fetch(name: str | Path) -> Path:
    """The folder of a run: a local one as it is, a Hugging Face hub id as its downloaded snapshot.

    ``synbrain/demo`` comes with the package and needs no network.
    """
    folder, hub_id = Path(name), str(name)
    if hub_id == DEMO and not folder.exists():
        return demo_dataset().with_name("run")
    if folder.exists() or hub_id.count("/") != 1 or hub_id.startswith((".", "/")):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.npz", "*.md"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise SynBrainError(
            f"{name} is neither a folder here nor a run on the Hugging Face hub ({type(error).__name__})",
            "check the path or id, the network, and that you may read it",
        ) from error
