"""
A decoder with synthetic hours
==============================

A decoder reads images out of responses. Scanner time limits it, so can synthetic trials stand in for more scanning? Here
a ridge decoder gets twenty minutes of a subject, with and without synthetic trials of a model that was adapted to
the same twenty minutes.
"""

# %%
# A model of the same few trials
# ------------------------------
#
# The model that makes the synthetic trials must not have seen more of the subject than the decoder: it is adapted to the
# same pictures, with the model of another subject as its prior.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from shared import example_dataset, example_model
from synbrain import AdaptOptions, adapt

dataset, budget = example_dataset(subject=2), 60
few = AdaptOptions(budget=budget, by="images", networks=False, shared_test_images="drop")
model = adapt(example_model(), dataset, few)

# %%
# Synthetic trials
# ----------------
#
# As a dataset, for pictures that the other subject saw. Test pictures of either subject are never used. From the command
# line: ``synbrain augment RUN DATASET --hours 1 --out SYNTHETIC``.

from synbrain.decoding.augment import augment
from synbrain.decoding.options import AugmentOptions

work = Path(tempfile.mkdtemp())
synthetic = augment(
    model, example_dataset(1), AugmentOptions(hours=0.5), out=work / "synthetic", keep_out=[dataset]
)
print(synthetic.info.n_trials, "synthetic trials")

# %%
# Two decoders, and what they find
# --------------------------------
#
# Each measured test response, a mean over three repeats, shall find its own picture among all test pictures.

from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.train import train_decoder
from synbrain.features.store import open_tokens

rows = dataset.image_rows("test")
responses = np.stack([dataset.responses[dataset.trials["image"] == row].mean(axis=0) for row in rows])
tokens = open_tokens(dataset, "efficientnet-lite0")
options = DecoderOptions(method="ridge", budget=budget, by="images", shared_test_images="drop", grid=3)


def flat(values: np.ndarray) -> np.ndarray:
    """(n, numbers) z-scored over images."""
    values = values.reshape(len(values), -1)
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)


ranks = {}
for name, extra in (("measured", None), ("measured + synthetic", synthetic)):
    decoder = train_decoder([dataset], options, out=work / name.replace(" ", ""), augment=extra)
    decoded = flat(decoder.predict_tokens(responses)[0])
    truth = flat(decoder.image_tokens(tokens.take(rows)))  # in the decoder's own token space
    similarity = np.corrcoef(decoded, truth)[: len(rows), len(rows) :]
    own = np.diag(similarity)[:, None]
    ranks[name] = (similarity > own).sum(axis=1)  # 0: found at once
    print(
        f"{name:<22} top-1 {np.mean(ranks[name] == 0):.2f}, two-way {1 - ranks[name].mean() / (len(rows) - 1):.3f}"
    )

# %%
# Chance is 1 in 60 for the first and .5 for the second. One subject and sixty pictures do not settle whether synthetic
# trials help; ``synbrain decoder evaluate`` and several seeds do.

fig, axis = plt.subplots(figsize=(5, 3), layout="constrained")
for name, rank in ranks.items():
    axis.ecdf(rank + 1, label=name)
axis.plot([1, len(rows)], [1 / len(rows), 1], "--", color="0.6", label="chance")
axis.set(xlabel="rank of the right picture", ylabel="share of test pictures", xscale="log")
axis.legend()
plt.show()
