"""
Predict responses and look at them
==================================

A model turns pictures into the mean response of every voxel. Here it is asked about pictures that it was not trained
on, and its answer is laid beside what the subject's brain did.
"""

# %%
# Open a dataset and a model
# --------------------------
#
# ``example_dataset`` and ``example_model`` stand for ``load_dataset("data/me")`` and
# ``SynBrain.from_pretrained("runs/me")``. The subject is simulated, so that the example runs anywhere.

import matplotlib.pyplot as plt
import numpy as np

from shared import example_dataset, example_model

dataset, model = example_dataset(), example_model()
print(dataset.info.n_trials, "trials,", dataset.info.n_voxels, "voxels, in", dataset.info.unit)

# %%
# Predict
# -------
#
# Any picture will do: paths, PIL images or a uint8 array. These are the first test images.

rows = dataset.image_rows("test")
pictures = [dataset.load_image(row) for row in rows]
predicted = model.predict(pictures)
print("predicted:", predicted.shape, predicted.dtype)

# %%
# Beside the measured responses
# -----------------------------
#
# A test image was shown three times. The mean over its repeats is less noisy than a single trial.

measured = np.stack([dataset.responses[dataset.trials["image"] == row].mean(axis=0) for row in rows])
mean_map = dataset.responses[dataset.trial_rows("train")].mean(axis=0)

fig, axes = plt.subplots(3, 3, figsize=(8, 5), width_ratios=[1, 3, 3], layout="constrained")
order = np.argsort(mean_map)
for (left, middle, right), picture, truth, answer in zip(axes, pictures, measured, predicted, strict=False):
    left.imshow(picture)
    left.set_axis_off()
    middle.plot((truth - mean_map)[order], lw=0.6, color="0.3")
    right.plot((answer - mean_map)[order], lw=0.6, color="C0")
    middle.sharey(right)
axes[0, 1].set_title("measured, less the mean map")
axes[0, 2].set_title("predicted, less the mean map")
axes[2, 1].set_xlabel("voxel")

# %%
# How good is it, voxel by voxel?
# -------------------------------
#
# Pearson across test images, for each voxel. Early visual areas first.

from synbrain.metrics.voxel import voxel_r

r = voxel_r(predicted, measured)
areas = {name: mask for name, mask in dataset.space.roi_masks("prf-visualrois").items() if mask.any()}
fig, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.boxplot([r[mask] for mask in areas.values()], tick_labels=[name.split("/")[1] for name in areas])
axis.axhline(0, color="0.7", lw=0.8)
axis.set_ylabel("Pearson across images")
print(f"mean over all voxels: {np.nanmean(r):.2f}")
plt.show()
