"""
Bring your own data
===================

A folder of pictures, a table of trials and an array of responses are enough. Nothing here is special to fMRI: the rows
may be voxels, electrodes or neurons.
"""

# %%
# What you have
# -------------
#
# Eighty pictures, each shown twice, and thirty "neurons" that like certain colours and places.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

rng = np.random.default_rng(0)
source = Path(tempfile.mkdtemp()) / "my-recordings"
(source / "images").mkdir(parents=True)
pixels = rng.integers(0, 256, (80, 4, 4, 3), dtype=np.uint8)
tuning = rng.standard_normal((4 * 4 * 3, 30)) / 10
lines, responses = [], []
for number, picture in enumerate(pixels):
    name = f"picture{number:02d}.png"
    Image.fromarray(picture).resize((96, 96), Image.Resampling.NEAREST).save(source / "images" / name)
    for repeat in range(2):
        lines.append((name, repeat, "test" if number >= 60 else "train"))
        drive = (picture.reshape(-1) / 128 - 1) @ tuning
        responses.append(drive + rng.standard_normal(30) / 4)
pd.DataFrame(lines, columns=["image", "repeat", "split"]).to_csv(source / "trials.csv", index=False)
np.save(source / "responses.npy", np.array(responses, dtype=np.float32))
print((source / "trials.csv").read_text()[:90])

# %%
# To a dataset
# ------------
#
# The same as ``synbrain prepare table my-recordings data/mine --unit spikes``. Everything is checked: missing pictures,
# rows that do not fit, an image in both splits, values that are not finite.

from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens
from synbrain.prepare.table import prepare_table

dataset = prepare_table(source, source.parent / "dataset", unit="spikes")
make_tokens(dataset, FeatureOptions(encoder="pixels", layers=["grid4"]))
print(dataset.info.n_trials, "trials of", dataset.info.n_images, "pictures")

# %%
# To a model
# ----------
#
# ``pixels`` tokens are the colours of a coarse grid; for photographs leave the encoder at its default. The networks are
# trained for a moment only: with eighty pictures the linear path is all that helps, and validation images decide that.

from synbrain import TrainOptions, evaluate, train
from synbrain.evaluation.options import EvaluateOptions

options = TrainOptions.model_validate(
    {"encoder": "pixels", "vae": {"epochs": 1}, "mapper": {"steps": 20, "round_steps": 10}}
)
model = train([dataset], options)
scores = evaluate(model, dataset, EvaluateOptions(samples=20, rows=["mean_map", "ridge", "ceiling"]))
for row in scores.rows:
    print(f"{row:<10} voxel r {scores.value(row, 'voxel_r'):.3f}")

# %%
predicted = model.predict([dataset.load_image(row) for row in dataset.image_rows("test")])
measured = np.stack(
    [dataset.responses[dataset.trials["image"] == row].mean(axis=0) for row in dataset.image_rows("test")]
)
fig, axis = plt.subplots(figsize=(4, 4), layout="constrained")
axis.scatter(measured, predicted, s=4)
axis.set(xlabel="measured, mean of two trials", ylabel="predicted")
plt.show()
