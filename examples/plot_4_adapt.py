"""
Adapt a model to a new subject
==============================

Scanner time is dear. A model of one subject is a head start for another: here the second subject has only a few
pictures, and the model of the first one is its prior.
"""

# %%
# One budget
# ----------
#
# ``budget`` counts distinct pictures here (``by="images"``), each with its repeats; ``"1h"`` is an hour of scanning.
# ``networks=False`` adapts the linear path and the trial noise alone, which takes seconds. Pictures that were test
# images of the first subject may not be trained on: adaptation refuses them unless it is told to drop them.

import matplotlib.pyplot as plt

from shared import example_dataset, example_model
from synbrain import AdaptOptions, adapt

base, dataset = example_model(), example_dataset(subject=2)
options = AdaptOptions(budget=40, by="images", networks=False, shared_test_images="drop")
adapted = adapt(base, dataset, options)
print(adapted.config.adaptation.n_images, "pictures,", adapted.config.adaptation.n_trials, "trials")
print(adapted.predict([dataset.load_image(0)]).shape, "voxels of the new subject")

# %%
# Was it worth it?
# ----------------
#
# The curve compares adaptation with what the same pictures give without the base: ridge, and the same model from
# scratch. Everything is scored on test images that no model has seen. From the command line it is
# ``synbrain adaptation-curve RUN DATASET --out curve``.

from synbrain.comparison.adaptation_curve import adaptation_curve
from synbrain.comparison.options import AdaptationCurveOptions

asked = AdaptationCurveOptions(
    budgets=["20", "40", "80"], draws=1, n_bootstrap=200, networks=False, shared_test_images="drop"
)
curve = adaptation_curve(base, dataset, asked)
points = curve["curve"]
fig, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
for name, label in (("adapted", "adapted"), ("scratch", "from scratch"), ("ridge", "ridge")):
    axis.plot([p["n_images"] for p in points], [p[name] for p in points], "o-", label=label)
axis.axhline(points[-1]["full"], color="0.6", lw=0.8, label="all of its data")
axis.set(xlabel="pictures of the new subject", ylabel="voxel r on its test images", xscale="log")
axis.legend()
for point in points:
    print({key: round(point[key], 3) for key in ("n_images", "adapted", "scratch", "ridge")})
plt.show()
