"""Whose responses a decoder reads, and whose trials are added: told by names, units and what a run saw."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fixtures.colours import linear_run, make_dataset
from synbrain import Dataset, Decoder, SynBrain
from synbrain.data.budget import parse_budget
from synbrain.data.marks import image_marks, packed
from synbrain.decoding.adapt import adapt_decoder
from synbrain.decoding.augment import augment
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.experiments.compare import compare_decoders
from synbrain.decoding.experiments.curve import augmentation_curve
from synbrain.decoding.options import (
    AugmentOptions,
    CurveOptions,
    DecoderAdaptOptions,
    DecoderComparison,
    DecoderEvaluation,
    DecoderOptions,
)
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.files import write_json

RIDGE = DecoderOptions(method="ridge", encoder="pixels", components=8)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """Three of as many voxels; the datasets are called otherwise than the people, as NSD's are."""
    here = tmp_path_factory.mktemp("whose")
    made = [make_dataset(here, name, 30, seed) for seed, name in enumerate(("a", "b", "c"), start=1)]
    return [of_person(data, f"person-{data.info.name}") for data in made]


def of_person(dataset: Dataset, name: str) -> Dataset:
    return replace(dataset, info=dataset.info.model_copy(update={"subject": name}))


@pytest.fixture
def settings(options: Callable[..., DecoderOptions]) -> DecoderOptions:
    small = options("mindeye2", encoder="pixels", components=8)
    sizes = small.mindeye2.sizes.model_copy(update={"use_prior": False})
    return small.model_copy(update={"mindeye2": small.mindeye2.model_copy(update={"sizes": sizes})})


@pytest.fixture
def adapting(settings: DecoderOptions) -> DecoderAdaptOptions:
    aligned = {"adaptation": "mindaligner", "latent": 16}
    return DecoderAdaptOptions.model_validate(settings.model_dump() | aligned)


def of_unit(run: SynBrain, unit: str) -> SynBrain:
    return SynBrain(run.config, {name: replace(part, unit=unit) for name, part in run.subjects.items()})


def that_saw_test_images(run: SynBrain, dataset: Dataset) -> SynBrain:
    seen = packed(image_marks(dataset, dataset.image_rows("test")))
    return SynBrain(run.config.model_copy(update={"trained_images": seen}), run.subjects)


def test_a_decoder_of_several_finds_its_subject_by_the_datasets_name(people, settings, tmp_path) -> None:
    a, b, c = people
    decoder = train_decoder([a, b], settings, out=tmp_path / "both")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SynBrainWarning)
        assert [decoder.for_dataset(data).active for data in (a, b)] == ["a", "b"]
        assert evaluate_decoder(decoder, b).rows == evaluate_decoder(decoder.for_subject("b"), b).rows
    with pytest.warns(SynBrainWarning, match="decoder is of a, .* of person-c: if these are two people"):
        decoder.for_dataset(c)


def test_a_name_that_ends_as_those_of_adapted_subjects_is_no_other_subject(people, settings, tmp_path):
    a, b, _ = people
    named = [replace(a, info=a.info.model_copy(update={"name": "a-new"})), b]
    named[1] = replace(b, info=b.info.model_copy(update={"name": "a"}))
    decoder = train_decoder(named, settings, out=tmp_path / "both")
    assert [decoder.for_dataset(data).active for data in named] == ["a-new", "a"]


def test_a_new_subject_of_a_known_name_is_the_one_that_is_decoded(people, settings, adapting, tmp_path):
    a, b, c = people
    train_decoder([a], settings, out=tmp_path / "base")
    same_name = [of_person(data, "person-a") for data in (b, c)]
    adapt_decoder(tmp_path / "base", same_name[0], adapting, out=tmp_path / "once")
    once = Decoder.from_pretrained(tmp_path / "once")
    assert once.for_dataset(same_name[0]).active == "person-a-new"
    assert once.for_subject("person-a").for_dataset(of_person(a, "person-a")).active == "person-a"
    twice = adapt_decoder(tmp_path / "once", same_name[1], adapting, out=tmp_path / "twice")
    assert list(twice.subjects) == ["person-a", "person-a-new", "person-a-new-new"]
    assert twice.for_dataset(same_name[1]).active == "person-a-new-new"
    # the subject between them is decoded as before
    of_b = (decoder.for_subject("person-a-new").embed(b.responses[:5]) for decoder in (once, twice))
    np.testing.assert_array_equal(*of_b)


def test_known_data_of_another_known_subject_are_refused(people, settings, adapting, tmp_path) -> None:
    a, b, c = people
    train_decoder([a, b], settings, out=tmp_path / "both")
    with pytest.raises(SynBrainError, match=r"is of b, the known subject is a: pass --known b"):
        adapt_decoder(tmp_path / "both", c, adapting, out=tmp_path / "new", known_data=b)


@pytest.mark.parametrize("how", ["evaluate", "curve", "compare"])
def test_a_run_whose_responses_do_not_belong_beside_these(people, settings, how, tmp_path) -> None:
    a, b, _ = people
    train_decoder([b], settings, out=tmp_path / "base")
    train_decoder([a], RIDGE, out=tmp_path / "ridge")
    curve = CurveOptions.model_validate(
        RIDGE.model_dump() | {"hours": [0, 0.1], "seeds": 1, "budget": "all", "arms": ["expected"]}
    )
    table = DecoderComparison.model_validate(settings.model_dump() | {"systems": ["ridge"], "budget": "all"})

    def made(run: SynBrain) -> object:
        if how == "evaluate":
            return evaluate_decoder(tmp_path / "ridge", a, run=run)
        if how == "curve":
            return augmentation_curve(run, a, curve, out=tmp_path / "curve")
        return compare_decoders(tmp_path / "base", a, table, run=run, known_data=b, out=tmp_path / "table")

    run = linear_run(a)
    for other, problem in (
        (of_unit(run, "z-score"), "the run has 30 voxels in 'z-score'"),
        (that_saw_test_images(run, a), "the run was trained on 12 of 12 test images"),
    ):
        with pytest.raises(SynBrainError, match=problem):
            made(other)
    with pytest.warns(SynBrainWarning, match="the run is of person-b, .* of person-a: if these are two"):
        made(linear_run(b))


def test_scores_name_the_subject_of_the_run_that_was_asked_for(people, tmp_path) -> None:
    a, b, _ = people
    run, part = linear_run(a), linear_run(b).subjects["person-b"]
    assert part.linear is not None
    upside_down = replace(part, linear=replace(part.linear, mixing=-part.linear.mixing))
    both = SynBrain(run.config, run.subjects | {"person-b": upside_down})
    decoder = train_decoder([a], RIDGE, out=tmp_path / "ridge")
    rows = {
        name: evaluate_decoder(decoder, a, DecoderEvaluation(subject=name), run=both).rows["synthetic_mean"]
        for name in (None, "person-a", "person-b")
    }
    assert rows[None] == rows["person-a"] != rows["person-b"]


def test_synthetic_trials_of_another_person_are_named(people, tmp_path) -> None:
    a, b, _ = people
    more = augment(linear_run(b), a, AugmentOptions(hours=0.1), out=tmp_path / "synthetic")
    with pytest.warns(SynBrainWarning, match="are of person-b, .* of person-a: if these are two people"):
        train_decoder([a], RIDGE, out=tmp_path / "ridge", augment=more)


def test_a_curve_goes_on_with_its_base_and_its_tokens_alone(people, settings, tmp_path, capsys) -> None:
    a, b, c = people
    train_decoder([b], settings, out=tmp_path / "base")
    train_decoder([c], settings, out=tmp_path / "other")
    quick = settings.model_copy(update={"mindeye2": settings.mindeye2.model_copy(update={"steps": 2})})
    how = CurveOptions.model_validate(
        quick.model_dump() | {"hours": [0, 0.1], "arms": ["expected"], "weights": [0, 0.5], "seeds": 1}
        | {"budget": "all", "resume": True}
    )  # fmt: skip
    run, out = linear_run(a), tmp_path / "curve"
    augmentation_curve(run, a, how, out=out, base=tmp_path / "base")
    for base in (tmp_path / "other", None):
        with pytest.raises(SynBrainError, match="other settings or data"):
            augmentation_curve(run, a, how, out=out, base=base)
    # tokens that were made anew of other pictures
    where = make_dataset(tmp_path, "d", 30, 4)
    augmentation_curve(linear_run(where), where, how, out=tmp_path / "again")
    stored = where.path / "tokens" / "pixels"
    layer = next(stored.glob("*.npy"))
    np.save(layer, np.load(layer)[::-1])
    facts = json.loads((stored / "tokens.json").read_text())
    facts["layers"][layer.stem]["sha256"] = "another"
    write_json(stored / "tokens.json", facts)
    with pytest.raises(SynBrainError, match="other settings or data"):
        augmentation_curve(linear_run(where), where, how, out=tmp_path / "again")


def test_a_seed_that_draws_nothing_is_refused(people, tmp_path) -> None:
    assert parse_budget("all", "images", 3) == parse_budget("all")
    for text in ("1h", 2):
        with pytest.raises(SynBrainError, match="takes no seed"):
            parse_budget(text, "session", 3)
