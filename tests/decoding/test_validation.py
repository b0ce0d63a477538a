"""Scores on validation images: one pass over the trials says the means and each image's score."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from synbrain.decoding.registry import fit_method
from synbrain.decoding.validation import log_ranks, validation_scores


def ragged(subject):
    """The first validation image was seen once, all others twice."""
    pairs = subject.validation
    kept = np.flatnonzero(np.arange(pairs.n_trials) != np.flatnonzero(pairs.image_of_trial == 0)[0])
    pairs = replace(pairs, trials=pairs.trials[kept], image_of_trial=pairs.image_of_trial[kept])
    assert sorted(set(pairs.repeats().tolist())) == [1, 2]
    return replace(subject, validation=pairs)


@pytest.fixture(params=["ridge", "mindeye2"])
def fitted(request, subject, options, workspace):
    data = ragged(subject()[0])
    return fit_method([data], options(request.param), workspace), data


def test_means_and_images_are_those_of_two_passes(fitted):
    method, data = fitted
    scores = validation_scores(method, [data, data])
    trials, image = data.scaled(data.validation.trial_responses()), data.validation.image_of_trial
    outputs = (
        method.embed(trials, data.name),
        method.predict_tokens(method.backbone(trials, data.name), 1, 0)[0],
    )
    ranks = [log_ranks(output, data.validation_targets, image) for output in outputs]
    means = [float(of_trials.mean()) for of_trials in ranks]
    assert scores.means["log_rank_embedded"] == means[0]
    assert scores.means["log_rank_tokens"] == means[1]
    assert scores.means["score"] == sum(means) / 2
    assert len(scores.each) == 2 * data.validation.n_images  # subject by subject
    for i, score in enumerate(scores.each[: data.validation.n_images]):
        assert score == pytest.approx(np.mean([of[image == i].mean() for of in ranks]), abs=1e-12)
    assert scores.each[data.validation.n_images :] == scores.each[: data.validation.n_images]


def test_a_finished_method_keeps_both(fitted, request):
    method, data = fitted
    if "ridge" in request.node.name:  # its figures are those of a fit without the validation images
        assert len(method.validation_each) == data.validation.n_images
        return
    scores = validation_scores(method, [data])
    assert method.validation_each == scores.each
    assert {name: method.validation[name] for name in scores.means} == scores.means


def test_every_output_is_predicted_once(fitted):
    method, data = fitted
    calls: Counter[str] = Counter()

    class Counting:
        def __getattr__(self, name):
            calls[name] += 1
            return getattr(method, name)

    validation_scores(Counting(), [data])
    assert calls == {"embed": 1, "backbone": 1, "predict_tokens": 1}
