"""A step sees images of all subjects; each counts for the units of who saw it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synbrain.features.encoders import get_encoder
from synbrain.features.tuned import FeatureMap
from synbrain.tuning.batches import Batches
from synbrain.tuning.network import TuningNetwork
from synbrain.tuning.subjects import TuningSubject


@pytest.fixture
def batches(subjects: list[TuningSubject]) -> Batches:
    return Batches(subjects, 8, 0.0, 0)


def test_an_epoch_shows_every_image_of_every_subject_once(batches: Batches) -> None:
    n_images = len(batches.rows)
    assert n_images == sum(len(s.train) for s in batches.subjects)
    steps = [batches.read(step) for step in range(n_images)]  # as many as it takes to come out even
    who = torch.cat([batch["subject"] for batch in steps])
    assert torch.bincount(who).tolist() == [8 * len(s.train) for s in batches.subjects]
    mixed = [len(set(batch["subject"].tolist())) for batch in steps]
    assert np.mean(mixed) > 1.8
    assert all((batch["subject"].diff() >= 0).all() for batch in steps)
    batch = steps[0]
    for i, which in enumerate(batch["subject"].tolist()):
        subject = batches.subjects[which]
        row = next(r for r in subject.train if np.array_equal(subject.pixels[r], batch["pixels"][i].numpy()))
        n_units = len(subject.sd)
        np.testing.assert_array_equal(batch["targets"][i, :n_units], subject.targets[row])
        assert not batch["targets"][i, n_units:].any()


def test_two_processes_share_a_batch(batches: Batches) -> None:
    whole = batches.read(3)
    for name, part in whole.items():
        parts = [batches.read(3, process, 2)[name] for process in (0, 1)]
        both, alone = (
            x.flatten(1).double() if x.ndim > 1 else x[:, None].double() for x in (torch.cat(parts), part)
        )
        key = [torch.argsort(x @ torch.arange(1, x.shape[1] + 1).double()) for x in (both, alone)]
        torch.testing.assert_close(both[key[0]], alone[key[1]])  # in another order


def network_of(batches: Batches) -> TuningNetwork:
    base = get_encoder("efficientnet-lite0", size=32)
    layers = {layer: base.layers[layer] for layer in ("block2", "block4")}
    torch.manual_seed(0)
    units = [len(s.sd) for s in batches.subjects]
    return TuningNetwork(base, FeatureMap(layers, 2, 6), units, "squared", seed=0, taught_weight=0.5).eval()


def test_the_loss_is_the_mean_over_images_of_the_error_of_who_saw_them(batches: Batches) -> None:
    network, batch = network_of(batches), batches.read(0)
    batch["weights"] = torch.where(batch["weights"] > 0, torch.rand(batch["weights"].shape), 0)
    taught = torch.randn(8, 8)
    with torch.no_grad():
        loss = network(**batch)["loss"]
        both = network(**batch, taught=taught)
        predicted = [network.predict(batch["pixels"], i) for i in (0, 1)]
    n_units, starts = [3, 5], [0, 3]
    errors, distances = [], []
    for i, which in enumerate(batch["subject"].tolist()):
        n, other = n_units[which], 1 - which
        measured = (predicted[which][i] - batch["targets"][i, :n]).square() * batch["weights"][i, :n]
        errors.append(measured.mean())
        told = taught[i, starts[other] : starts[other] + n_units[other]]
        distances.append((predicted[other][i] - told).square().mean())
    torch.testing.assert_close(loss, torch.stack(errors).mean())
    torch.testing.assert_close(both["as_taught"], torch.stack(distances).mean())
    torch.testing.assert_close(both["loss"], loss + 0.5 * both["as_taught"])
