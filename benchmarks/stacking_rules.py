"""How paths of two encoders are averaged, judged by training images that were not drawn.

    python benchmarks/stacking_rules.py BASE... --kept KEPT... --work WORK [--budgets 50 100 200]

BASE, KEPT and WORK are those of a call of ``tuning.py`` with ``--frozen-prior``. For each number of training
images, paths on the frozen and the tuned encoder are fitted to the images drawn and averaged with none, half
and all of the weights common to all voxels. Printed is voxel r on the training images that are left, the mean
of the sessions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import load_dataset
from synbrain.features.tokens import split_pairs
from synbrain.files import read_json
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.prior import fit_with_prior, response_space
from synbrain.linear.stacking import stacked
from synbrain.metrics.voxel import mean_defined, voxel_r
from tuning import LINEAR, Cell, Frozen, readout_space, session_parser, tokens_of, unseen

COMMON = (0.0, 0.5, 1.0)


def main() -> None:
    typed = session_parser(__doc__, ["50", "100", "200"]).parse_args()
    tuned = next(typed.work.glob("encoder*"))
    layers = list(read_json(tuned / "config.json")["layers"])
    base = read_json(tuned / "config.json")["base"]
    frozen = Frozen(base, [*layers, "final"], typed.work, 0)
    kinds = {
        frozen.encoder: (frozen.layers, response_space([frozen.path(load_dataset(p)) for p in typed.base])),
        str(tuned): ([*layers, "readout"], readout_space(tuned)),
    }
    for budget in typed.budgets:
        found: dict[str, list[list[float]]] = {"linear both": [], "prior both": []}
        for path in typed.kept:
            dataset = unseen(load_dataset(path), str(tuned), [*layers, "readout"])
            for way, reached in of_session(Cell(dataset, budget, frozen), kinds).items():
                found[way].append(reached)
        for way, each in found.items():
            cells = " | ".join(f"{r:.4f}" for r in np.mean(each, axis=0))
            print(f"| {way}, {budget} images | {cells} |", flush=True)


def of_session(cell: Cell, kinds: dict[str, tuple[list[str], Any]]) -> dict[str, list[float]]:
    """Way -> voxel r with each share of :data:`COMMON`."""
    fits: dict[str, list[LinearFit]] = {"linear both": [], "prior both": []}
    predicted: dict[str, list[NDArray[np.float32]]] = {way: [] for way in fits}
    for encoder, (layers, space) in kinds.items():
        train, _ = cell.pairs(encoder, layers)
        whole, _ = split_pairs(cell.dataset, tokens_of(cell.dataset, encoder, layers))
        left = whole.take(np.flatnonzero(~np.isin(whole.tokens.rows, train.tokens.rows)))
        alone = fit_linear_path(train, LINEAR, seed=0)
        both = alone, fit_with_prior(train, space, LINEAR, seed=0, alone=alone)
        for way, fit in zip(fits, both, strict=True):
            fits[way].append(fit)
            predicted[way].append(fit.path.predict(left.tokens))
    measured, y = left.repeat_means(), train.repeat_means()
    reached: dict[str, list[float]] = {way: [] for way in fits}
    for way, of in fits.items():
        for common in COMMON:
            shares, _ = stacked([fit.out_of_fold for fit in of], y, of[0].folds, common)
            mean = sum(share * p for share, p in zip(shares, predicted[way], strict=True))
            reached[way].append(mean_defined(voxel_r(np.asarray(mean), measured))[0] or 0.0)
    return reached


if __name__ == "__main__":
    main()
