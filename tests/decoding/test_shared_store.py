"""Tokens that datasets share lie in another order than a dataset's images: nothing may mix the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synbrain.data.dataset import Dataset
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.options import DecoderEvaluation, DecoderOptions
from synbrain.decoding.pictures.reconstruct import reconstruct
from synbrain.decoding.train import train_decoder
from synbrain.evaluation.measured import measure
from synbrain.evaluation.oracle_row import oracle_row
from synbrain.features.encoders import get_encoder
from synbrain.features.options import StoreOptions
from synbrain.features.store import open_tokens, write_tokens
from synbrain.features.tokens import split_pairs
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd


@pytest.fixture(scope="module")
def both(nsd_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The second subject with tokens of its own, and with a store that has a row for each picture."""
    folder = tmp_path_factory.mktemp("stores")
    pixels = get_encoder("pixels")
    options = NsdOptions(repeats="available")
    own, shared = (
        prepare_nsd(nsd_tree, folder / name, subject=2, options=options) for name in ("own", "shared")
    )
    write_tokens(own, pixels)
    write_tokens(shared, pixels, options=StoreOptions(store=folder / "store"))
    assert not np.array_equal(open_tokens(own, "pixels").rows, open_tokens(shared, "pixels").rows)
    return own, shared


def test_the_oracle_is_of_the_images_shown(both: tuple[Dataset, Dataset]) -> None:
    scores = []
    for dataset in both:
        train, test = split_pairs(dataset, open_tokens(dataset, "pixels"))
        measured = measure(test, train, dataset.space, n_bootstrap=20)
        row = oracle_row(dataset, measured, n_samples=4, seed=0)
        assert row is not None
        scores.append(row.values["voxel_r"])
    assert scores[0] == scores[1]


def test_decoded_pictures_stand_beside_those_seen(both: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    made, tables = [], []
    for dataset in both:
        out = tmp_path / dataset.path.name
        options = DecoderOptions(method="ridge", encoder="pixels", grid=0, components=0)
        train_decoder([dataset], options, out=out)
        decoder = Decoder.from_pretrained(out)
        made.append(reconstruct(decoder, dataset, renderer="pixels", images=5, seed=1))
        judged = DecoderEvaluation(renderer="pixels", networks=[])
        tables.append(evaluate_decoder(decoder, dataset, judged))
    own, shared = made
    assert own.names == shared.names
    for name, pictures in own.rows.items():
        np.testing.assert_array_equal(np.stack(pictures), np.stack(shared.rows[name]), err_msg=name)
    assert tables[0].rows == tables[1].rows
