"""``synbrain decoder adapt``: a decoder to a new subject with little data, by fine-tuning or MindAligner."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn

from synbrain.data.dataset import Dataset
from synbrain.data.known_pictures import KnownPictures
from synbrain.data.marks import image_marks, packed, unpacked
from synbrain.decoding.alignment import Alignment, known_subject, make_alignment
from synbrain.decoding.decoder import NEW, Decoder, DecoderConfig, DecoderSubject
from synbrain.decoding.folder import decoder_digest, save_decoder
from synbrain.decoding.guards import require_no_test_image
from synbrain.decoding.mindeye2.aligner import Transfer
from synbrain.decoding.mindeye2.fit import train_network
from synbrain.decoding.mindeye2.model import MindEye2
from synbrain.decoding.options import DecoderAdaptOptions
from synbrain.decoding.refit import fit_decoder
from synbrain.decoding.subjects import DecodingData, decoding_data
from synbrain.decoding.train import decoder_of, settings_of, training_folder
from synbrain.decoding.unseen import note_seen
from synbrain.decoding.unused import note_unused_in_adaptation, note_unused_in_training
from synbrain.errors import SynBrainError
from synbrain.files import require_replaceable
from synbrain.networks.fit.devices import processes_on
from synbrain.networks.fit.loop import derived_seed
from synbrain.training.leakage import note_left_out
from synbrain.training.networks import Workspace

AS_PUBLISHED = DecoderAdaptOptions()


def adapt_decoder(
    decoder: Path,
    dataset: Dataset,
    options: DecoderAdaptOptions = AS_PUBLISHED,
    *,
    out: Path,
    augment: Dataset | None = None,
    known_data: Dataset | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Decoder:
    """Fit a MindEye2 decoder of other subjects to the subject of ``dataset``; it stops on validation images.

    ``finetune`` (MindEye2): a new first layer, then everything is trained further. ``mindaligner``: voxels of
    the new subject go through two bias-free layers into the known subject's frozen decoder. With
    ``known_data``, pairs of trials of the two subjects, of images of one category or with like tokens, are
    aligned as well (:mod:`synbrain.decoding.alignment`).

    Args:
        decoder: folder of the base decoder.
        dataset: the new subject's, with tokens of the base's encoder.
        options: budget, kind of adaptation, settings of training.
        out: the decoder folder to write; it holds the new subject alone.
        augment: synthetic trials of the new subject.
        known_data: mindaligner: the known subject's dataset, for its alignment loss.
        overwrite: replace a decoder that stands at ``out``.
        show_progress: show bars.

    Raises:
        SynBrainError: a base that is no MindEye2, test images that it was trained on, an unknown subject,
            data that are not the known subject's.
    """
    require_replaceable(out, overwrite, [decoder, dataset.path])
    processes_on(options.device)
    base = Decoder.from_pretrained(decoder)
    note_unused_in_training(options, has_synthetic=augment is not None)
    note_unused_in_adaptation(base, options, one=True, has_pairs=known_data is not None)
    data = adaptation_data(base, dataset, options, augment)
    if augment is not None:
        note_seen(data.n_validation_images, data.seen)

    def fit(data: DecodingData, workspace: Workspace, until: int | None) -> Decoder:
        alignment = None
        if known_data is not None:
            alignment = make_alignment(base, data, dataset, known_data, options)
        return adapt_to(base, data, options, workspace, augment, alignment, until)

    with training_folder(out, settings_of(data, options, decoder_digest(decoder)), overwrite) as folder:
        workspace = Workspace(folder, show_progress=show_progress, device=options.device)
        adapted = fit_decoder(fit, data, options, workspace, base.targets)
        origin = {"adapted_from": decoder_digest(decoder)}
        adapted = replace(adapted, config=adapted.config.model_copy(update=origin))
        if PartialState().is_main_process:
            save_decoder(adapted, out, overwrite=overwrite)
    return adapted


def adaptation_data(
    base: Decoder,
    dataset: Dataset,
    options: DecoderAdaptOptions,
    augment: Dataset | None = None,
    run_images: str | None = None,
) -> DecodingData:
    """The new subject's images within the budget, in the base's token space.

    Args:
        base: decoder of other subjects.
        dataset: the new subject's.
        options: budget, share of validation images.
        augment: synthetic trials of the new subject.
        run_images: marks of the images that the maker of synthetic trials saw (:func:`decoding_data`).

    Raises:
        SynBrainError: the base was trained on test images of ``dataset``, or the other way round.
    """
    source = base.targets.source
    tokens = {"encoder": source.encoder, "layer": source.layer}
    known, base_test = base.known_pictures, unpacked(base.config.test_images)
    trained = known.with_copies(unpacked(base.config.trained_images), dataset, "the base")
    copies = known.only(base_test).copied_in(dataset, dataset.image_rows("train"))
    note_left_out(dataset, copies, "the base's subjects")
    left_out = set(image_marks(dataset, copies))
    data = decoding_data(
        [dataset], options.model_copy(update=tokens), augment, targets=base.targets, run_images=run_images,
        left_out=left_out | (base_test if options.shared_test_images == "drop" else set()),
    )  # fmt: skip
    who, mend = "base and adaptation together would be trained on {n}", "make one split for all subjects"
    require_no_test_image(trained, unpacked(data.test_images), f"{who} test images of {dataset.path}", mend)
    drop = f"{mend}, or pass --shared-test-images drop"
    require_no_test_image(unpacked(data.trained_images), base_test, f"{who} test images of the base", drop)
    return data


def adapt_to(
    base: Decoder,
    data: DecodingData,
    options: DecoderAdaptOptions,
    workspace: Workspace,
    augment: Dataset | None = None,
    alignment: Alignment | None = None,
    until: int | None = None,
) -> Decoder:
    """:func:`adapt_decoder` for data at hand, once; up to step ``until`` where it is given."""
    if not isinstance(base.method, MindEye2):
        raise SynBrainError(
            f"a decoder of kind {base.config.kind!r} has nothing to adapt", "train one with --method mindeye2"
        )
    data = _named_apart(data, base)
    new = data.subjects[0]
    method = copy.deepcopy(base.method)
    method.network.float().requires_grad_(True)
    trained: tuple[str, ...] = ("",)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(options.seed, 41))
        if options.adaptation == "finetune":
            hidden = method.network.backbone.config.hidden
            method.network.ridge.linears = nn.ModuleList([nn.Linear(new.n_voxels, hidden)])
            method.network.transfers = nn.ModuleList()
            method.subjects, method.aligned = (new.name,), {}
        else:
            align(method, base, new.n_voxels, new.name, options)
            trained = (f"transfers.{len(method.aligned) - 1}.",)
    train_network(method, data.subjects, options, workspace, trained, alignment, until)
    marks = unpacked(base.config.trained_images) | unpacked(data.trained_images)
    adapted = decoder_of(method, data, options, augment)
    record = {"adaptation": options.adaptation} | ({} if alignment is None else alignment.record)
    config: DecoderConfig = adapted.config.model_copy(
        update={
            "kind": "mindeye2",
            "trained_images": packed(marks),
            "test_images": packed(unpacked(base.config.test_images) | unpacked(data.test_images)),
            "training": adapted.config.training | record,
        }
    )
    subjects: dict[str, DecoderSubject] = adapted.subjects
    if options.adaptation == "mindaligner":
        subjects = base.subjects | subjects  # the known subject's layer is what the new one goes through
    known = KnownPictures.joined([base.known_pictures, data.known_pictures])
    return replace(adapted, config=config, subjects=subjects, active=new.name, known_pictures=known)


def _named_apart(data: DecodingData, base: Decoder) -> DecodingData:
    """``data`` whose subject has a name that the base has not given to another."""
    subject = data.subjects[0]
    name = subject.name
    while name in base.subjects:
        name += NEW
    return replace(data, subjects=[replace(subject, name=name)], units={name: data.units[subject.name]})


def align(method: MindEye2, base: Decoder, n_voxels: int, name: str, options: DecoderAdaptOptions) -> None:
    """Add MindAligner's two layers for a new subject, whose inputs and outputs are z-scores.

    Raises:
        SynBrainError: where the known subject is none of the base's.
    """
    known = known_subject(base, options.known)
    n_known = base.subjects[known].n_voxels
    method.network.transfers.append(Transfer(n_voxels, options.latent, n_known))
    method.aligned[name] = known
