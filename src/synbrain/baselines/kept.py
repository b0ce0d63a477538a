"""What ridge on many images predicts, kept beside the tokens.

`evaluate`, `report` and every later run on the same data show the same row of ridge, which at 9,000 images
takes longer to fit than all else takes to score.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from synbrain.arrays import Float32
from synbrain.baselines.ridge import ALPHAS, Ridge
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.files import digest_of, open_array, save_array
from synbrain.linear.plain import is_kept, keep_latest

METHOD = 3  # rises with any change of what ridge predicts; 2: look-alikes share a fold; 3: another key


def ridge_predictions(
    train: Pairs,
    tokens: TokenSet,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    show_progress: bool = False,
) -> Float32:
    """``Ridge().fit(train).predict(tokens)``, read where the same was predicted before.

    Args:
        train: what ridge is fitted on.
        tokens: images to predict.
        seed: of the folds.
        device: where it is fitted.
        show_progress: show bars.

    Returns:
        (n_images, n_voxels) float32, in the dataset's unit.
    """
    if not is_kept(train.tokens):
        return Ridge(device=device).fit(train, seed=seed, show_progress=show_progress).predict(tokens)
    folder = next(iter(train.tokens.files.values())).folder / "kernels"
    file = folder / f"ridge-{_key(train, tokens, seed)}.npy"
    try:
        known = np.array(open_array(file))
    except (SynBrainError, OSError):
        known = np.empty((0, 0), dtype=np.float32)
    if known.shape == (len(tokens), train.n_voxels):
        return known
    predicted = Ridge(device=device).fit(train, seed=seed, show_progress=show_progress).predict(tokens)
    keep_latest(file, lambda: save_array(file, predicted))
    return predicted


def _key(train: Pairs, tokens: TokenSet, seed: int) -> str:
    """Of everything that the predictions depend on, responses included.

    Families of look-alikes, which folds depend on, follow from files and rows unless they are settled; to
    find them takes longer than all else here.
    """
    responses = hashlib.sha256(np.ascontiguousarray(train.repeat_means()).data).hexdigest()
    images = [train.tokens.rows.tolist(), tokens.rows.tolist()]
    files = {layer: file.sha256 for layer, file in sorted(train.tokens.files.items())}
    settled = train.tokens.settled
    families = None if settled is None else settled.tolist()
    known = [METHOD, ALPHAS.tolist(), responses, images, files, seed, families]
    return digest_of(known)[:16]
