"""``synbrain decoder train``: datasets to a decoder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState

from synbrain.data.dataset import Dataset
from synbrain.decoding.decoder import Decoder, DecoderConfig, DecoderSubject
from synbrain.decoding.folder import save_decoder
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingMethod, chosen_step
from synbrain.decoding.refit import fit_decoder
from synbrain.decoding.registry import fit_method
from synbrain.decoding.subjects import DecodingData, decoding_data
from synbrain.decoding.unseen import note_seen
from synbrain.decoding.unused import note_unused_in_training
from synbrain.files import alone, digest_of, read_json, require_replaceable, write_json
from synbrain.networks.fit.devices import processes_on
from synbrain.training.networks import Workspace

AS_PUBLISHED = DecoderOptions()


def train_decoder(
    datasets: list[Dataset],
    options: DecoderOptions = AS_PUBLISHED,
    *,
    out: Path,
    augment: Dataset | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Decoder:
    """Fit a decoder from responses to image tokens; run again to go on after an interruption.

    Args:
        datasets: one folder a subject; several share everything but their first layer.
        options: method, budget, tokens and settings.
        out: the decoder folder to write.
        augment: synthetic trials of the subject, as `synbrain augment` writes them.
        overwrite: replace a decoder that stands at ``out``.
        show_progress: show bars.

    Raises:
        SynBrainError: bad input (see :func:`synbrain.decoding.subjects.decoding_data`), nothing written.
    """
    require_replaceable(out, overwrite, [dataset.path for dataset in datasets])
    processes_on(options.device)
    note_unused_in_training(options, has_synthetic=augment is not None)
    data = decoding_data(datasets, options, augment)
    if augment is not None:
        note_seen(data.n_validation_images, data.seen)
    # checkpoints lie beside the decoder until it is whole; their own identity refuses other settings

    def fit(data: DecodingData, workspace: Workspace, until: int | None) -> Decoder:
        return decoder_of(fit_method(data.subjects, options, workspace, until), data, options, augment)

    with training_folder(out, settings_of(data, options), overwrite) as folder:
        workspace = Workspace(folder, show_progress=show_progress, device=options.device)
        decoder = fit_decoder(fit, data, options, workspace)
        if PartialState().is_main_process:
            save_decoder(decoder, out, overwrite=overwrite)
    return decoder


def settings_of(data: DecodingData, options: DecoderOptions, base: str = "") -> str:
    """Digest of what a training that goes on must have in common with its first call."""
    pairs = [of for s in data.subjects for of in (s.train, s.validation, s.synthetic) if of is not None]
    settings = options.model_dump(mode="json", exclude={"device"})
    return digest_of([settings, base, *(of.digest for of in pairs)])


@contextmanager
def training_folder(out: Path, settings: str, overwrite: bool) -> Iterator[Path]:
    """Where a decoder's checkpoints lie until it is finished; they stay where something is raised.

    Args:
        out: where the decoder will stand.
        settings: digest; checkpoints of a training with others are refused.
        overwrite: such checkpoints are removed instead.

    Raises:
        SynBrainError: where another process makes this decoder now, with the same checkpoints.
    """
    folder, processes = out.with_name(f".{out.name}.training"), PartialState()
    known = folder / "settings.json"
    with alone(out) if processes.is_main_process else nullcontext():
        if processes.is_main_process:
            if overwrite and folder.exists() and not (known.exists() and read_json(known) == settings):
                shutil.rmtree(folder)
            if not known.exists():
                write_json(known, settings)
        processes.wait_for_everyone()
        try:
            yield folder
        except BaseException:
            if processes.is_main_process and list(folder.iterdir()) == [known]:  # no checkpoint yet
                shutil.rmtree(folder)
            raise
        processes.wait_for_everyone()  # until the main one has written the decoder
        if processes.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)


def decoder_of(
    method: DecodingMethod,
    data: DecodingData,
    options: DecoderOptions,
    augment: Dataset | None = None,
) -> Decoder:
    """A fitted method with the scales and the record of the data that it was fitted on."""
    subjects = {s.name: DecoderSubject(s.name, data.units[s.name], s.mean, s.sd) for s in data.subjects}
    synthetic: dict[str, Any] | None = None
    if augment is not None:
        assert augment.info.synthetic is not None  # or the data would have been refused
        lineage = augment.info.synthetic.model_dump(exclude={"trained_images"})
        synthetic = lineage | {"weight": options.synthetic_weight}
    config = DecoderConfig(
        kind=options.method,
        seed=options.seed,
        synthetic=synthetic,
        training=data.record
        | {"settings": digest_of(options.model_dump(mode="json", exclude={"device"}))[:16]},
        validation=dict(getattr(method, "validation", {})),
        # who chose no step was fitted to validation images too
        last_fit={"images": data.record["n_images"]} if chosen_step(method) is None else {},
        trained_images=data.trained_images,
        test_images=data.test_images,
    )
    return Decoder(config, method, data.targets, subjects, data.subjects[0].name, data.known_pictures)
