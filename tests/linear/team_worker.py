"""One of two processes that fit a linear path together: FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from fixtures.small_path import CONFIG, made
from synbrain.linear.fit import fit_linear_path
from synbrain.linear.team import Team


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    pairs, new = made()
    fit = fit_linear_path(pairs, CONFIG, seed=3, team=Team.of(state))
    np.savez(folder / f"{state.process_index}.npz", out_of_fold=fit.out_of_fold, new=fit.path.predict(new))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
