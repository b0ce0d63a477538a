"""The density of a low-rank normal is that of the whole covariance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from synbrain.metrics.low_rank import log_density


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_density_against_scipy(rank: int) -> None:
    rng = np.random.default_rng(rank)
    loadings, unique = rng.standard_normal((7, rank)), rng.uniform(0.1, 2, 7)
    z = rng.standard_normal((20, 7))
    whole = multivariate_normal(np.zeros(7), loadings @ loadings.T + np.diag(unique))
    np.testing.assert_allclose(log_density(z, loadings, unique), whole.logpdf(z), rtol=1e-10)
