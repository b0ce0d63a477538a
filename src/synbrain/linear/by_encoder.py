"""The linear path on tokens of several encoders: one path for each, averaged voxel by voxel.

A kernel over all layers at once lets the larger or noisier encoder drown the other. Averages follow each
path's cross-validation. Half of the weights is common to all voxels: which encoder is better is known from
few images where all voxels speak together (docs/research/method.md, "Several encoders").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from synbrain.features.joint import each_encoder, owner_of
from synbrain.features.look_alikes import about_families
from synbrain.features.tokens import Pairs
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit
from synbrain.linear.path import joined
from synbrain.linear.stacking import stacked
from synbrain.linear.storing import voxel_sd
from synbrain.metrics.voxel import mean_defined, voxel_r

COMMON = 0.5  # share of the weights that all voxels have in common
# pairs with the tokens of one encoder, its settings, its number -> its path
FitOne = Callable[[Pairs, LinearPathConfig, int], LinearFit]


def fit_each_encoder(pairs: Pairs, config: LinearPathConfig, fit: FitOne) -> LinearFit:
    """``fit`` on the layers of each encoder of ``pairs.tokens``, averaged; one encoder's as it is.

    Args:
        pairs: training images with their trials.
        config: settings; ``layers`` may name layers of every encoder.
        fit: fits one of them; folds must depend on its images' families alone.
    """
    tokens = pairs.tokens if config.layers is None else pairs.tokens.only(*config.layers)
    each = each_encoder(tokens)
    if len(each) == 1:
        return fit(pairs, config, 0)
    free = config.model_copy(update={"layers": None})
    # what one encoder tells apart another may not: families, and so folds, are those of all encoders together
    each = each_encoder(tokens.in_families())
    fits = [fit(replace(pairs, tokens=part), free, number) for number, part in enumerate(each)]
    y = pairs.repeat_means()
    shares, average = stacked([of.out_of_fold for of in fits], y, fits[0].folds, COMMON)
    path = joined([of.path for of in fits], shares, tokens, voxel_sd(y), config.rank, config.dtype)
    owners = [owner_of(next(iter(part.layers))) for part in each]
    about = {"n_images": len(y), **about_families(each[0].families), "rank": len(path.mixing)}
    about |= {f"weight_of_{owner}": float(share.mean()) for owner, share in zip(owners, shares, strict=True)}
    about["cross_validated_r"] = mean_defined(voxel_r(average, y))[0]
    return LinearFit(replace(path, about=about), average, fits[0].folds, sum(of.gflop for of in fits))
