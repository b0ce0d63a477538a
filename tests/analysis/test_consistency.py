"""Profiles, selectivity and pattern consistency on brains whose truth is known."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from synbrain.analysis.consistency import (
    Source,
    agreement_table,
    profile_agreement,
    selectivity_agreement,
    shuffled_agreement,
    shuffled_selectivity,
    trial_consistency,
)
from synbrain.analysis.pictures import require_same_pictures
from synbrain.analysis.profiles import merged_rois, pattern_consistency, selectivity
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.simulate.example import toy_dataset

N_IMAGES = 60
KINDS = np.array(["face", "place", "word"])[np.arange(N_IMAGES) % 3]
NAMES = np.arange(100, 100 + N_IMAGES)
CATEGORY: dict[Any, str] = dict(zip(NAMES.tolist(), KINDS.tolist(), strict=True))


def brain(seed: int, n_voxels: int = 30, noise: float = 0.3) -> Source:
    """The first ten voxels like faces, the next ten places, the rest nothing."""
    rng = np.random.default_rng(seed)
    tuning = np.zeros((N_IMAGES, n_voxels))
    tuning[KINDS == "face", :10] = 1.0
    tuning[KINDS == "place", 10:20] = 1.0
    rois = {"FFA": np.arange(n_voxels) < 10, "PPA": (np.arange(n_voxels) >= 10) & (np.arange(n_voxels) < 20)}
    return Source(NAMES, tuning + noise * rng.normal(size=tuning.shape), rois)


def test_profiles_agree_between_brains_and_not_when_shuffled() -> None:
    agree = profile_agreement(brain(0), brain(1, n_voxels=40))
    shuffled = shuffled_agreement(brain(0), brain(1))
    assert all(value is not None and value > 0.9 for value in agree.values())
    assert all(value is not None and value < 0.25 for value in shuffled.values())


def test_images_are_matched_by_name_not_by_position() -> None:
    one, two = brain(0), brain(1)
    order = np.random.default_rng(3).permutation(N_IMAGES)
    mixed = Source(two.images[order], two.responses[order], two.rois)
    assert profile_agreement(one, mixed) == pytest.approx(profile_agreement(one, two))


def test_selectivity_is_welchs_t_and_finds_the_preferred_voxels() -> None:
    source = brain(0)
    t = selectivity(source.responses, KINDS == "face")
    assert t[:10].min() > t[20:].max()
    expected = stats.ttest_ind(
        source.responses[KINDS == "face", 0], source.responses[KINDS != "face", 0], equal_var=False
    )
    assert t[0] == pytest.approx(expected.statistic)
    with pytest.raises(ValueError, match="two images"):
        selectivity(source.responses, np.zeros(N_IMAGES, dtype=bool))


def test_selectivity_maps_agree_within_and_between_subjects() -> None:
    within = selectivity_agreement(brain(0), brain(1), CATEGORY)
    assert within["face"] is not None
    assert within["face"] > 0.9
    shuffled = shuffled_selectivity(brain(0), brain(1), CATEGORY)
    assert shuffled["face"] is not None
    assert 0 < shuffled["face"] < within["face"] - 0.3
    three_rois = brain(1, n_voxels=40)
    assert set(selectivity_agreement(brain(0), three_rois, CATEGORY)) == {"face", "place", "word"}


def patterns(consistent: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(20), 4)
    signal = rng.normal(size=(20, 50))[image]
    noise = rng.normal(size=signal.shape)
    return np.sqrt(consistent) * signal + np.sqrt(1 - consistent) * noise, image


def test_pattern_consistency_recovers_the_shared_variance() -> None:
    trials, image = patterns(0.6, 0)
    mean_map = np.linspace(-50, 50, 50)
    found = pattern_consistency(trials + mean_map, image, mean_map)
    assert found == pytest.approx(0.6, abs=0.05)
    assert pattern_consistency(trials[::4], image[::4], mean_map) is None


def test_trial_consistency_compares_measured_with_synthetic() -> None:
    trials, image = patterns(0.6, 0)
    synthetic, _ = patterns(0.2, 1)
    samples = synthetic.reshape(20, 4, 50).transpose(1, 0, 2)
    table = trial_consistency(trials, image, samples, np.zeros(50), {"all": np.ones(50, dtype=bool)})
    assert table["all"]["measured"] == pytest.approx(0.6, abs=0.05)
    assert table["all"]["synthetic"] == pytest.approx(0.2, abs=0.05)


def test_table_has_every_comparison_for_every_roi() -> None:
    table = agreement_table(brain(0), {"adapted": brain(1), "full": brain(2)}, {"other": brain(3, 40)})
    assert set(table) == {"FFA", "PPA"}
    row = table["FFA"]
    assert list(row) == [
        "adapted vs measured",
        "full vs measured",
        "adapted vs full",
        "adapted vs other subjects",
        "adapted vs measured, shuffled (absolute r)",
    ]
    assert row["adapted vs measured"] is not None
    assert row["adapted vs measured, shuffled (absolute r)"] is not None
    assert row["adapted vs measured"] > row["adapted vs measured, shuffled (absolute r)"]


def test_areas_are_joined_under_shared_names() -> None:
    masks = {f"prf/{part}": np.arange(30) // 10 == i for i, part in enumerate(("V1v", "V1d", "hV4"))}
    masks |= {"floc/FFA-1": np.arange(30) < 15, "floc/OFA": np.arange(30) < 3}
    joined = merged_rois(masks)
    assert {name: int(mask.sum()) for name, mask in joined.items()} == {"V1": 20, "hV4": 10, "FFA": 15}


def test_areas_of_two_atlases_and_numbered_labels_are_not_joined() -> None:
    """Regions 1 of two unnamed atlases, V1 of two maps, and VO-1 with VO-2 each made one area."""
    places = np.arange(60) // 15
    names = ("visual/label 1", "language/label 1", "wang/VO-1", "wang/VO-2")
    joined = merged_rois({name: places == i for i, name in enumerate(names)})
    assert list(joined) == ["label 1 (visual)", "label 1 (language)", "VO-1", "VO-2"]
    assert [int(mask.sum()) for mask in joined.values()] == [15] * 4
    both = {
        "prf/V1v": places == 0,
        "prf/V1d": places == 1,
        "glasser/V1": places < 3,
        "glasser/V2": places == 3,
    }
    sizes = {name: int(mask.sum()) for name, mask in merged_rois(both).items()}
    assert sizes == {"V1 (prf)": 30, "V1 (glasser)": 45, "V2": 15}


def test_pictures_that_are_called_alike_must_be_the_same(tmp_path: Path) -> None:
    """The control between subjects would correlate responses to different pictures, and come out low."""
    first, second = toy_dataset(tmp_path / "a"), toy_dataset(tmp_path / "b", seed=1)
    require_same_pictures(first, second)
    folder, names = second.stimulus_path(), first.images["name"].tolist()
    kept = {name: (folder / name).read_bytes() for name in names}
    for name, other in zip(names, reversed(names), strict=True):
        (folder / name).write_bytes(kept[other])
    with pytest.raises(SynBrainError, match=r"20 of 20 images .* call alike are different pictures"):
        require_same_pictures(first, second)
    for name in names:  # the same pictures in other files
        Image.open(io.BytesIO(kept[name])).save(folder / name, compress_level=1)
    assert (folder / names[0]).read_bytes() != kept[names[0]]
    require_same_pictures(first, second)
    shutil.rmtree(folder)
    with pytest.warns(SynBrainWarning, match="is not known"):
        require_same_pictures(first, second)
