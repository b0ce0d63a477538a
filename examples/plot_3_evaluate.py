"""
Evaluate with controls
======================

A score alone says little: a map that ignores the picture can correlate with a brain at .9. So every table holds the
mean map, ridge regression on the same features, and the noise ceiling.
"""

# %%
import matplotlib.pyplot as plt

from shared import example_dataset, example_model
from synbrain import evaluate
from synbrain.evaluation.options import EvaluateOptions
from synbrain.evaluation.table import terminal

dataset, model = example_dataset(), example_model()
scores = evaluate(model, dataset, EvaluateOptions(samples=20))
print(terminal(scores))

# %%
# The metric that flatters
# ------------------------
#
# *Pearson within a trial*, across voxels, is what was published for models of this kind. Voxels differ in their mean,
# so the mean map scores well without looking at the picture. *voxel r*, across pictures, gives it 0.

rows = ["mean_map", "ridge", "synbrain", "ceiling"]
fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for axis, metric, title in ((axes[0], "pearson", "Pearson within a trial"), (axes[1], "voxel_r", "voxel r")):
    for place, row in enumerate(rows):
        score = scores[row][metric]
        axis.bar(place, score.value or 0, color="C0" if row == "synbrain" else "0.75")
        if score.interval is not None:
            axis.vlines(place, *score.interval, color="0.2")
    axis.set_xticks(range(len(rows)), rows)
    axis.set_title(title)

# %%
# Is the difference from ridge real?
# ----------------------------------
#
# Both rows see the same bootstrap samples of test images, so that the difference is paired.

for metric in ("voxel_r", "crps"):
    entry = scores.differences["synbrain"][metric]
    low, high = entry["interval"]
    print(
        f"{metric}: {entry['difference']:+.3f} [{low:+.3f}, {high:+.3f}], p {entry['p_holm']:.3f} after Holm"
    )
plt.show()
