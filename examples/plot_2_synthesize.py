"""
Synthesize trials and average them
==================================

One picture gives another response every time it is shown. A model that only predicts the mean knows nothing of that;
this one also draws trials.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

from shared import example_dataset, example_model

dataset, model = example_dataset(), example_model()
rows = dataset.image_rows("test")
pictures = [dataset.load_image(row) for row in rows]
synthetic = model.sample(pictures, n_samples=32, seed=7)
print("synthetic trials x images x voxels:", synthetic.shape)

# %%
# The average of synthetic trials approaches the prediction
# ---------------------------------------------------------
#
# As with real repeats, the noise of a mean falls with the root of the number of trials.

mean = model.predict(pictures)
counts = [1, 2, 4, 8, 16, 32]
error = [np.sqrt(np.mean((synthetic[:n].mean(axis=0) - mean) ** 2)) for n in counts]
fig, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.loglog(counts, error, "o-", label="synthetic trials")
axis.loglog(counts, error[0] / np.sqrt(counts), "--", color="0.6", label="one over root n")
axis.set(xlabel="trials averaged", ylabel=f"distance from the prediction ({dataset.info.unit})")
axis.legend()

# %%
# Do synthetic trials vary as real ones do?
# -----------------------------------------
#
# The spread of each voxel over the repeats of an image, synthetic against measured. On the diagonal it is right. No
# test trial was used to fit it.

trials = dataset.trials
spread = np.sqrt(
    np.mean([dataset.responses[trials["image"] == row].var(axis=0, ddof=1) for row in rows], axis=0)
)
drawn = np.sqrt(synthetic.var(axis=0, ddof=1).mean(axis=0))
fig, axis = plt.subplots(figsize=(4, 4), layout="constrained")
axis.scatter(spread, drawn, s=6)
limit = [0, 1.05 * max(spread.max(), drawn.max())]
axis.plot(limit, limit, color="0.6", lw=0.8)
axis.set(xlabel="sd of measured trials", ylabel="sd of synthetic trials", xlim=limit, ylim=limit)
print(f"median ratio of variances: {np.median(drawn**2 / spread**2):.2f}")

# %%
# Voxels vary together
# --------------------
#
# Noise is shared among voxels, and synthetic trials share it too. From the command line,
# ``synbrain synthesize runs/me pictures/ --samples 32 --out synthetic.npy`` writes as many as the disk holds.

repeats = [dataset.responses[trials["image"] == row] for row in rows]
residual = np.concatenate([responses - responses.mean(axis=0) for responses in repeats])
some = np.argsort(-spread)[:40]
fig, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
noise = (synthetic - synthetic.mean(axis=0)).reshape(-1, synthetic.shape[-1])
for axis, values, title in ((axes[0], residual, "measured"), (axes[1], noise, "synthetic")):
    image = axis.imshow(np.corrcoef(values[:, some].T), vmin=-1, vmax=1, cmap="RdBu_r")
    axis.set_title(f"noise correlations, {title}")
fig.colorbar(image, ax=axes)
plt.show()
