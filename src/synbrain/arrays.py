"""Names for the kinds of arrays that signatures speak of; shapes and units stand in the docstrings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]  # responses, tokens, predictions
Float64 = NDArray[np.float64]  # kernels, covariances, statistics
Rows = NDArray[np.int64]  # row numbers of images, trials or voxels
Mask = NDArray[np.bool_]
