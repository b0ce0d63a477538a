"""An option that would do nothing is named; one that says what is so anyway is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from synbrain import Dataset
from synbrain.decoding.adapt import adapt_decoder
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.options import DecoderAdaptOptions, DecoderEvaluation, DecoderOptions
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainWarning
from synbrain.simulate.example import toy_dataset


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    folder = tmp_path_factory.mktemp("unused")
    return [toy_dataset(folder / str(seed), seed) for seed in range(2)]


@pytest.fixture
def settings(options: Callable[..., DecoderOptions]) -> DecoderOptions:
    small = options("mindeye2", encoder="pixels", components=8, grid=2)
    sizes = small.mindeye2.sizes.model_copy(update={"use_prior": False})
    return small.model_copy(
        update={"mindeye2": small.mindeye2.model_copy(update={"sizes": sizes, "steps": 2})}
    )


def test_in_training_and_adaptation(people: list[Dataset], settings: DecoderOptions, tmp_path: Path) -> None:
    first, second = people
    with pytest.warns(SynBrainWarning, match="without effect: --synthetic-weight; .* pass --augment"):
        train_decoder([first], settings.model_copy(update={"synthetic_weight": 0.2}), out=tmp_path / "base")

    def adapted(number: int, **changes: object) -> None:
        how = DecoderAdaptOptions.model_validate(settings.model_dump() | changes)
        adapt_decoder(tmp_path / "base", second, how, out=tmp_path / str(number))

    with warnings.catch_warnings():
        warnings.simplefilter("error", SynBrainWarning)
        adapted(0)  # the base's own
    with pytest.warns(SynBrainWarning, match="--method, --encoder, --grid; token space and sizes are"):
        adapted(1, method="ridge", encoder="clip", grid=1)
    sizes = {"hidden": 7, "use_prior": False}
    with pytest.warns(SynBrainWarning, match=r"without effect: --mindeye2\.sizes"):
        adapted(2, mindeye2=settings.mindeye2.model_dump() | {"sizes": sizes})
    with pytest.warns(SynBrainWarning, match="--latent, --neighbours; pass --adaptation mindaligner"):
        adapted(3, latent=3, neighbours=2)
    with pytest.warns(SynBrainWarning, match="without effect: --neighbours; pass --known-data"):
        adapted(4, latent=3, neighbours=2, adaptation="mindaligner")


def test_in_evaluation(people: list[Dataset], tmp_path: Path) -> None:
    ridge = DecoderOptions(method="ridge", encoder="pixels", grid=0, components=0)
    decoder = train_decoder(people[:1], ridge, out=tmp_path / "ridge")
    asked = DecoderEvaluation(networks=["clip"], subject="someone")
    with pytest.warns(SynBrainWarning) as told:
        evaluate_decoder(decoder, people[0], asked)
    notes = " ".join(str(note.message) for note in told)
    assert "without effect: --networks; pass --renderer" in notes
    assert "without effect: --subject; pass --run" in notes
