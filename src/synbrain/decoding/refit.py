"""The last fit: what held-out images chose is trained once more, on these images too.

Images that choose the step of a network are lost to its weights. A search in scikit-learn gives them back: it
scores on held-out data, then fits the best setting to all data (``refit``). So here: the second training has
the seed, the rates and the temperatures of the first, and ends at the step that was chosen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from synbrain.decoding.decoder import Decoder
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingSubject, chosen_step
from synbrain.decoding.subjects import DecodingData, mean_and_sd
from synbrain.decoding.targets import TokenTargets
from synbrain.errors import SynBrainWarning
from synbrain.features.tokens import Pairs
from synbrain.training.networks import Workspace

# (data, workspace, step to end at; None: the one that validation images choose) -> decoder
Fit = Callable[[DecodingData, Workspace, int | None], Decoder]


def fit_decoder(
    fit: Fit,
    data: DecodingData,
    options: DecoderOptions,
    workspace: Workspace,
    targets: TokenTargets | None = None,
) -> Decoder:
    """Fit, and fit once more to all images where ``options.refit`` asks for it.

    Args:
        fit: fits a decoder; called once or twice.
        data: with validation images.
        options: how tokens are reduced; settings of ``fit``.
        workspace: for checkpoints and logs.
        targets: of a decoder that is adapted.
    """
    decoder = fit(data, workspace, None)
    if not options.refit:
        return decoder
    if chosen_step(decoder.method) is None:
        what = f"{options.method} is fitted to all images as it is, no step was chosen by some of them"
        warnings.warn(f"{what}: --refit changes nothing", SynBrainWarning, stacklevel=3)
        return decoder
    return refitted(decoder, fit, on_all_images(data, options, targets), workspace)


def refitted(first: Decoder, fit: Fit, whole: DecodingData, workspace: Workspace) -> Decoder:
    """``first`` trained anew on ``whole`` for the steps that were chosen; its validation scores stay.

    A method that chose no step (closed forms, which are fitted to all images as they are) is given back.

    Args:
        first: as ``fit`` gave it.
        fit: what fitted it.
        whole: the same data with nothing held out (:func:`on_all_images`).
        workspace: of the first fit; the second keeps checkpoints and log in its subfolder ``refit``.
    """
    steps = chosen_step(first.method)
    if steps is None:
        return first
    again = fit(whole, replace(workspace, folder=workspace.folder / "refit"), steps)
    n_images = sum(subject.train.n_images for subject in whole.subjects)
    record = {"validation": first.config.validation, "last_fit": {"images": n_images, "steps": steps}}
    return replace(again, config=again.config.model_copy(update=record))


def on_all_images(
    data: DecodingData, options: DecoderOptions, targets: TokenTargets | None = None
) -> DecodingData:
    """``data`` with its validation images among the training images; synthetic trials stay as they are.

    Args:
        data: as :func:`synbrain.decoding.subjects.decoding_data` gave it, guards and all.
        options: how tokens are reduced.
        targets: of a decoder that is adapted; fitted to all images where left out.
    """
    every = [subject.train.together_with(subject.validation) for subject in data.subjects]
    if targets is None:
        layer, tokens = data.targets.source.layer, [pairs.tokens for pairs in every]
        targets = TokenTargets.fit(tokens, layer, grid=options.grid, components=options.components)
    subjects = [_whole(s, pairs, targets) for s, pairs in zip(data.subjects, every, strict=True)]
    return replace(data, subjects=subjects, targets=targets, validation_images=frozenset())


def once_fitted(options: DecoderOptions) -> set[str]:
    """Settings without a part in a decoder's digest: without a last fit it is that of earlier versions."""
    return set() if options.refit else {"refit"}


def _whole(subject: DecodingSubject, pairs: Pairs, targets: TokenTargets) -> DecodingSubject:
    mean, sd = mean_and_sd(pairs)
    synthetic = subject.synthetic
    return replace(
        subject, train=pairs, targets=targets.of(pairs.tokens), mean=mean, sd=sd,
        validation=pairs.take(pairs.tokens.rows[:0]), validation_targets=subject.validation_targets[:0],
        synthetic_targets=None if synthetic is None else targets.of(synthetic.tokens),
    )  # fmt: skip
