"""
Tune an image encoder
=====================

A published image network was trained on photographs, not on brains. Here it is trained further on the recordings of one
subject, and a second subject, which it has never seen, is predicted from it. Real use takes many subjects and hours
of recordings (see the guide); these 180 pictures show the steps.
"""

# %%
# Tune
# ----
#
# Each voxel gets a readout: where in the picture it looks, and what it reads there. Network and readouts are trained
# together. Test images of either subject are left out (``keep_out``), and a tenth of the training images is held out to
# judge by. From the command line it is ``synbrain tune-encoder DATASET... --keep-out OTHER --out ENCODER``.

import matplotlib.pyplot as plt

from shared import FOLDER, example_dataset
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.tune import tune_encoder

first, second = example_dataset(subject=1), example_dataset(subject=2)
options = TuneOptions(size=64, epochs=8, batch_size=16, shared_test_images="drop")
tuned = tune_encoder([first], options, out=FOLDER / "tuned", keep_out=[second], overwrite=True)
for told in tuned.config["datasets"]:
    print({key: told[key] for key in ("name", "units", "images_tuned_on", "held_out_r")})

# %%
# Where voxels look
# -----------------
#
# A readout's places sum to 1: a receptive field that was learned from responses alone.

places = tuned.readouts[0].places.detach().softmax(dim=1).cpu().numpy()
sharpest = places.max(axis=1).argsort()[::-1][:6]
side = tuned.config["side"]
fig, axes = plt.subplots(1, 6, figsize=(9, 1.8), layout="constrained")
for axis, voxel in zip(axes, sharpest, strict=True):
    axis.imshow(places[voxel].reshape(side, side), cmap="magma")
    axis.set(title=f"voxel {voxel}", xticks=[], yticks=[])
plt.show()

# %%
# A subject that it has not seen
# ------------------------------
#
# The tuned encoder is one like any other. Best is a model that reads both: a linear path on each, averaged.

from synbrain import TrainOptions, evaluate, train
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens

name = str(FOLDER / "tuned")
make_tokens(second, FeatureOptions(encoder=name), overwrite=True)
for encoder in ("efficientnet-lite0", name, f"efficientnet-lite0+{name}"):
    run = train([second], TrainOptions(encoder=encoder, networks=False))
    scores = evaluate(run, second)
    what = encoder.replace(name, "tuned")
    print(what, *(f"{row} {scores.value(row, 'voxel_r'):.3f}" for row in ("synbrain", "ridge", "ceiling")))
