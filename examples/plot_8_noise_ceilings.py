"""
Noise ceilings by hand
======================

How well could any model do? Repeats of the same picture answer that. This example computes the ceiling from scratch,
compares it with the library's, and with the truth, which a simulation knows.
"""

# %%
# Signal and noise
# ----------------
#
# A trial is the picture's mean plus noise. With n repeats, the variance of repeat means over pictures is
# signal + noise / n, so the signal is what is left after noise / n is taken away.

import matplotlib.pyplot as plt
import numpy as np

from shared import example_dataset

dataset = example_dataset()
rows = dataset.image_rows("test")
trials = np.stack(
    [dataset.responses[dataset.trials["image"] == row] for row in rows]
)  # images x repeats x voxels
n_images, n_repeats, n_voxels = trials.shape
noise = trials.var(axis=1, ddof=1).mean(axis=0)
signal = np.maximum(trials.mean(axis=1).var(axis=0, ddof=1) - noise / n_repeats, 0)
print(n_images, "pictures,", n_repeats, "repeats,", n_voxels, "voxels")

# %%
# The best correlation
# --------------------
#
# A perfect model explains signal / (signal + noise / n) of the variance of the repeat means. Its correlation with
# them is the root of that. ``ncsnr`` is the signal's sd over the noise's.

ncsnr = np.sqrt(signal / noise)
best = np.sqrt(ncsnr**2 / (ncsnr**2 + 1 / n_repeats))

from synbrain.metrics.ceiling import correlation_ceiling
from synbrain.metrics.ceiling import ncsnr as library_ncsnr

image_of_trial = np.repeat(np.arange(n_images), n_repeats)
library = library_ncsnr(trials.reshape(-1, n_voxels), image_of_trial)
np.testing.assert_allclose(ncsnr, library, rtol=1e-4, atol=1e-6)
np.testing.assert_allclose(best, correlation_ceiling(library, n_repeats), rtol=1e-4, atol=1e-3)
print(f"mean ceiling {best.mean():.3f}")

# %%
# Against the truth
# -----------------
#
# A simulation knows its signal and noise (real data never do). The estimate scatters around the truth, without bias;
# the more test pictures and repeats, the closer.

from shared import FOLDER
from synbrain.simulate.truth import Truth

truth = Truth.load(FOLDER / "simulated-nsd", subject=1).ncsnr
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
axes[0].hist(best, bins=30)
axes[0].set(xlabel="best correlation with a mean of three trials", ylabel="voxels")
axes[1].scatter(truth, ncsnr, s=4)
axes[1].axline((0, 0), slope=1, color="0.6", lw=0.8)
axes[1].set(xlabel="true ncsnr", ylabel="ncsnr of 60 test pictures")
print(f"mean ncsnr: {ncsnr.mean():.3f} estimated, {np.mean(truth):.3f} true")
plt.show()
