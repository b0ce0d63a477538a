"""Decoders before and after the last fit to all real images, with and without synthetic trials.

    python benchmarks/refit.py BASE DATASET... --images 25 50 100 200 --draws 0 1 2 4 --out FOLDER

As `synbrain adapt --leave-out 0.2` and `synbrain augmentation-curve --validation-fraction 0.2 --refit
--weights 0 0.5 --arms calibrated --hours 0 4 --seeds 1` do it for each budget of images and draw of them,
without the diffusion prior: a generator is adapted to four fifths of the images, two decoders (real trials
alone; half of every batch synthetic) are trained on these, and the other fifth says which step of each is
best and whether synthetic trials gain more than a standard error. Then both are trained anew on all images
for these steps. The generator is not, and synthetic trials stay the same.

Fixed before any test score of a decoder after the last fit was seen:

Question. With the last fit, is a decoder with synthetic trials below the one without? "Below" at a place
(recording, budget, draw): the 95 % interval of the difference over test images lies below 0. "Below" in all:
so does the interval of a budget's mean over recordings and draws. Both for images ranked, brains ranked and
two-way, for trials taken by the default rule ("one_se") and always.

Prediction. (1) Two-way gains .02 with 25 images and .01 with 50, .005 or less with 100 and 200, with
synthetic trials as without. (2) No mean of a budget is below, by either rule. (3) Always, a few places of
v4_210325 with 25 or 50 images are below; by "one_se" at most one or two in all, as it seldom takes them.

Draw 4 had not been looked at in any way; the others had been, for decoders before the last fit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from share_by_folds import HOURS, SHARE, Chosen, Hour, each_measured, hours_of, margins, places_parser, table
from synbrain.decoding.choice import chosen_share, standard_error
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.experiments.arms import Arms, Cell
from synbrain.decoding.experiments.curve import METRICS
from synbrain.decoding.mindeye2.model import MindEye2
from synbrain.decoding.refit import on_all_images, refitted
from synbrain.decoding.registry import fit_method
from synbrain.decoding.subjects import DecodingData, decoding_data, with_synthetic
from synbrain.decoding.train import decoder_of
from synbrain.features.store import open_untuned
from synbrain.files import read_json
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.model.synbrain import SynBrain
from synbrain.training.adapt import adapt_to, layers_read, new_subject
from synbrain.training.networks import Workspace

FITS = ("first fit", "last fit")


def generator(hour: Hour) -> SynBrain:
    """The base adapted to the budget without the fifth that decoders are chosen by."""
    _, options = hour.subject()
    options = options.model_copy(update={"leave_out": hour.options.validation_fraction})
    dataset, tokens = open_untuned(hour.dataset, hour.base.config.encoder, layers_read(hour.base, options))
    return adapt_to(hour.base, new_subject(hour.base, dataset, tokens, options), options)


def both_fits(hour: Hour, data: DecodingData) -> tuple[Decoder, Decoder]:
    """A decoder as validation images chose it, and trained anew on all images."""

    def fit(data: DecodingData, workspace: Workspace, until: int | None) -> Decoder:
        return decoder_of(fit_method(data.subjects, hour.options, workspace, until), data, hour.options)

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        first = fit(data, workspace, None)
        return first, refitted(first, fit, on_all_images(data, hour.options), workspace)


def measured(hour: Hour) -> dict[str, Any]:
    """Test scores of both fits without and with synthetic trials, and what the fifth says of them."""
    run = generator(hour)
    data = decoding_data([hour.dataset], hour.options, run_images=run.config.trained_images)
    assert data.seen == ()
    trials = Arms(run, hour.dataset, hour.dataset).trials(Cell("calibrated", HOURS, 0), data)
    kept: dict[float, list[float]] = {}
    test: dict[str, Any] = {name: {} for name in FITS}
    for share, of in {0.0: data, SHARE: with_synthetic(data, *trials, SHARE)}.items():
        decoders = both_fits(hour, of)
        assert isinstance(decoders[0].method, MindEye2)
        kept[share] = decoders[0].method.validation_each
        for name, decoder in zip(FITS, decoders, strict=True):
            each = evaluate_decoder(decoder, hour.dataset).each["measured_mean"]
            scores = {m: np.asarray(each[m]).tolist() for m in METRICS}
            test[name][f"{share:g}"] = {"step": decoders[0].method.kept_step} | scores
    gain = np.subtract(kept[0.0], kept[SHARE])
    return {
        "recording": hour.dataset.info.name, "images": hour.images, "draw": hour.draw,
        "gain": float(gain.mean()), "standard_error": standard_error(gain.tolist()),
        "taken": {"one_se": chosen_share(kept, "one_se") > 0, "mean": chosen_share(kept, "mean") > 0},
        "test": test,
    }  # fmt: skip


def chosen_of(result: dict[str, Any], fit: str) -> Chosen:
    without, synthetic = (
        {m: np.asarray(result["test"][fit][share][m]) for m in METRICS} for share in ("0", f"{SHARE:g}")
    )
    place = (result["recording"], result["images"], result["draw"])
    return Chosen(place, without, synthetic, result["taken"], result["gain"] / result["standard_error"])


def below(chosen: list[Chosen], rule: str) -> None:
    """Places where synthetic trials are clearly below or above, for each metric."""
    counts = dict.fromkeys(METRICS, 0)
    for of in chosen:
        for metric in METRICS:
            apart = of.scores(rule)[metric] - of.without[metric]
            low, high = bootstrap_mean(apart) if np.any(apart) else (0.0, 0.0)
            counts[metric] += low > 0
            if high < 0:
                print(f"{rule}: {of.place} below in {metric}, {apart.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
    takes = sum(of.takes(rule) for of in chosen)
    print(f"{rule}: taken at {takes} of {len(chosen)} places; clearly above at {counts}")


def by_place(ways: dict[str, list[Chosen]]) -> None:
    """What the last fit gains in two-way, with places (recording, draw) as what varies."""
    last, first = ways.values()
    for images in sorted({of.place[1] for of in last}):
        for rule in ("never", "always"):
            pairs = [(a, b) for a, b in zip(last, first, strict=True) if a.place[1] == images]
            apart = np.array([np.mean(a.scores(rule)["two_way"] - b.scores(rule)["two_way"])
                              for a, b in pairs])  # fmt: skip
            error = standard_error(apart.tolist())
            print(
                f"{images} images, {rule}: {apart.mean():+.4f} (standard error over {len(apart)} places "
                f"{error:.4f}), above at {int((apart > 0).sum())}, {apart.min():+.3f} to {apart.max():+.3f}"
            )


def main() -> None:
    args = places_parser(__doc__, images=[25, 50, 100, 200], draws=[0, 1, 2, 4]).parse_args()
    results = [read_json(file) for file in each_measured(hours_of(args), args.out, measured)]
    ways = {fit: [chosen_of(result, fit) for result in results] for fit in reversed(FITS)}
    table(ways)
    for fit, chosen in ways.items():
        print(fit)
        for rule in ("one_se", "mean", "always"):
            below(chosen, rule)
    margins(ways)
    by_place(ways)
    steps = [result["test"][FITS[0]][share]["step"] for result in results for share in ("0", f"{SHARE:g}")]
    print(f"steps chosen: quartiles {np.percentile(steps, [0, 25, 50, 75, 100]).tolist()}")


if __name__ == "__main__":
    main()
