"""The paper's table of decoders, on toys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixtures.colours import linear_run, make_dataset
from synbrain.decoding.experiments.compare import ceiling_of, compare_decoders, table_of
from synbrain.decoding.options import DecoderComparison, DecoderOptions
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainError


def test_every_row(tmp_path: Path, options) -> None:
    first = make_dataset(tmp_path, "first", 30, 1)
    second = make_dataset(tmp_path, "second", 24, 2)
    small: DecoderOptions = options("mindeye2", encoder="pixels", components=8)
    sizes = small.mindeye2.sizes.model_copy(update={"use_prior": False})
    settings = small.model_copy(update={"mindeye2": small.mindeye2.model_copy(update={"sizes": sizes})})
    train_decoder([first], settings, out=tmp_path / "base")
    how = DecoderComparison.model_validate(
        settings.model_dump() | {"budget": "all", "seeds": 1, "hours": [0.1, 0.2], "latent": 16}
    )
    given = {"run": linear_run(second), "known_data": first, "out": tmp_path / "table"}
    table = compare_decoders(tmp_path / "base", second, how, **given)
    assert not table["failed"]
    assert (tmp_path / "table" / "table.md").read_text().startswith("| decoder | images_ranked |")
    names = ["ridge", "mindeye2", "mindaligner", "mindeye2_da_0.1h", "mindeye2_da_0.2h", "full", "full_ridge"]
    assert list(table["rows"]) == [*names, "repeats"]
    for column, row in table["ceiling"].items():
        small = column == "correlation_distance"
        both = [table["rows"][name][column]["value"] for name in ("full", "full_ridge")]
        assert table["rows"][row][column]["value"] == (min if small else max)(both)
    # here the budget is all the data, so that either ridge is the same decoder
    assert table["rows"]["full_ridge"]["two_way"]["value"] == table["rows"]["ridge"]["two_way"]["value"]
    assert "difference_interval" in table["rows"]["mindeye2_da_0.1h"]["two_way"]
    assert set(table["validation"]) == set(names)
    assert table["about"]["validation_images_the_run_saw"] is None  # this run does not say
    assert table["rows"]["repeats"]["two_way"]["value"] > 0.9  # hardly any noise
    assert "correlation_distance" not in table["rows"]["repeats"]
    words = table_of(table)
    assert "| repeats" in words
    assert "| ceiling | full" in words
    assert "| minus mindeye2" in words
    assert not ceiling_of({"ridge": table["rows"]["ridge"]})
    with pytest.raises(SynBrainError, match="exists already"):
        compare_decoders(tmp_path / "base", second, how, **given)
    # as if it had been interrupted before the end: finished decoders are taken as they are
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "table" / "cells").glob("*.json")}
    (tmp_path / "table" / "table.json").unlink()
    again = compare_decoders(tmp_path / "base", second, how, **given)
    assert again["rows"] == table["rows"]
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
    # further rows are added; the finished ones are taken as they are and stay in the table
    more = how.model_copy(update={"hours": [0.3], "systems": ["mindeye2_da"], "resume": True})
    longer = compare_decoders(tmp_path / "base", second, more, **given)
    assert list(longer["rows"]) == [*names[:5], "mindeye2_da_0.3h", *names[5:], "repeats"]
    assert longer["about"]["synthetic_hours"] == [0.1, 0.2, 0.3]
    assert all(longer["rows"][name] == row for name, row in table["rows"].items())
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
    with pytest.raises(SynBrainError, match="no decoders"):
        compare_decoders(tmp_path / "base", second, how.model_copy(update={"systems": ["x"]}), **given)
    assert np.isfinite(table["rows"]["ridge"]["correlation_distance"]["value"])
    # other settings are refused, and the finished table stays
    written = (tmp_path / "table" / "table.json").read_bytes()
    other = how.model_copy(update={"synthetic_weight": 0.25, "resume": True})
    with pytest.raises(SynBrainError, match="other settings"):
        compare_decoders(tmp_path / "base", second, other, **given)
    assert (tmp_path / "table" / "table.json").read_bytes() == written
