"""The simulated tree: NSD's layout, the truth beside it, and responses that look like visual cortex."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat
from scipy.stats import spearmanr

from synbrain.errors import SynBrainError
from synbrain.files import digest
from synbrain.simulate.experiment import SimulationSize, simulate
from synbrain.simulate.truth import Truth, image_categories

SIZE = SimulationSize(160, 24, 4, 120, (20, 13, 14), 7.5, 200, 32)
SHORT = SimulationSize(30, 6, 1, 60, (17, 11, 11), 9.0, 100, 32)
BETAS = "nsddata_betas/ppdata/subj{:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
ROIS = "nsddata/ppdata/subj{:02d}/func1pt8mm/roi"


@dataclass
class Read:
    """One subject as an outsider reads it from the tree, without the simulator's code."""

    tree: Path
    subject: int

    def roi(self, name: str) -> Any:
        return np.asarray(nib.load(self.tree / ROIS.format(self.subject) / f"{name}.nii.gz").dataobj)

    @property
    def mask(self) -> Any:
        return self.roi("nsdgeneral") > 0

    def sessions(self) -> list[Path]:
        return sorted((self.tree / BETAS.format(self.subject)).glob("betas_session*.nii.gz"))

    def betas(self) -> Any:
        """(n_trials, n_voxels) percent signal change."""
        volumes = [np.asarray(nib.load(path).dataobj)[self.mask].T for path in self.sessions()]
        return np.concatenate(volumes) / 300.0

    def ids(self) -> Any:
        """(n_trials,) 73k ids, 0-based."""
        design = loadmat(self.tree / "nsddata/experiments/nsd/nsd_expdesign.mat")
        order = design["masterordering"][0].astype(int)
        ids = design["subjectim"][self.subject - 1].astype(int)[order - 1] - 1
        return ids[: len(self.sessions()) * SIZE.trials_per_session]

    def labels(self, name: str) -> dict[str, int]:
        path = self.tree / f"nsddata/freesurfer/subj{self.subject:02d}/label/{name}.mgz.ctab"
        rows = [line.split() for line in path.read_text().splitlines()]
        return {text: int(value) for value, text in rows}


def within_image(values: Any, ids: Any) -> Any:
    """Residuals around the mean of each image, of images with three trials, rescaled to full variance."""
    frame = pd.DataFrame(values).groupby(ids)
    kept = (frame[0].transform("size") == 3).to_numpy()
    return (values - frame.transform("mean").to_numpy())[kept] * np.sqrt(3 / 2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "nsd"
    simulate(out, subjects=2, size=SIZE, seed=3, sessions=[4, 3])
    return out


@pytest.fixture(scope="module")
def first(tree: Path) -> Read:
    return Read(tree, 1)


def test_layout_and_dtypes(tree: Path, first: Read) -> None:
    with h5py.File(tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        brick = file["imgBrick"]
        assert brick.shape == (24 + 2 * 136, 32, 32, 3)
        assert brick.dtype == np.uint8
    image = nib.load(first.sessions()[0])
    assert image.get_data_dtype() == np.int16
    assert image.shape == (20, 13, 14, 120)
    assert image.dataobj.slope == 1
    assert first.mask.sum() == 200
    assert set(np.unique(first.roi("nsdgeneral"))) == {-1, 0, 1}
    both = np.maximum(first.roi("lh.prf-visualrois"), first.roi("rh.prf-visualrois"))
    assert np.array_equal(both, first.roi("prf-visualrois"))
    for name in ("prf-visualrois", "floc-faces", "floc-places", "floc-bodies", "floc-words", "streams"):
        inside = set(np.unique(first.roi(name)[first.mask])) - {0}
        assert inside, name
        assert inside <= set(first.labels(name).values()), name
    behaviour = pd.read_csv(tree / "nsddata/ppdata/subj01/behav/responses.tsv", sep="\t")
    assert np.array_equal(behaviour["73KID"] - 1, first.ids())
    assert behaviour.groupby("SESSION")["RUN"].max().eq(12).all()


def test_design_is_nsds(tree: Path) -> None:
    design = loadmat(tree / "nsddata/experiments/nsd/nsd_expdesign.mat")
    order, images = design["masterordering"][0].astype(int), design["subjectim"].astype(int)
    assert np.array_equal(np.bincount(order), [0] + [3] * 160)
    assert np.array_equal(images[0, :24], design["sharedix"][0])
    assert np.array_equal(images[0, :24], images[1, :24])
    assert not set(images[0, 24:]) & set(images[1, 24:])
    assert sorted({*images[0], *images[1]}) == list(range(1, 24 + 2 * 136 + 1))
    info = pd.read_csv(tree / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", index_col=0)
    assert info["shared1000"].sum() == 24
    repeats = info.loc[info["subject1"] == 1, [f"subject1_rep{k}" for k in range(3)]].to_numpy()
    nsd_ids = info.loc[info["subject1"] == 1, "nsdId"].to_numpy()
    for k in range(3):
        assert np.array_equal(images[0][order[repeats[:, k] - 1] - 1] - 1, nsd_ids)
    sessions = (repeats - 1) // SIZE.trials_per_session
    assert np.mean(sessions.min(axis=1) != sessions.max(axis=1)) > 0.5


def test_a_subject_that_stopped_early_has_ragged_repeats(tree: Path) -> None:
    second = Read(tree, 2)
    assert len(second.sessions()) == 3
    counts = np.bincount(second.ids())
    assert {1, 2, 3} <= set(counts)


def test_subjects_differ(tree: Path, first: Read) -> None:
    second = Read(tree, 2)
    assert first.mask.shape != second.mask.shape
    assert first.mask.sum() != second.mask.sum()
    assert not np.allclose(Truth.load(tree, 1).ncsnr.mean(), Truth.load(tree, 2).ncsnr.mean())


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    trees = [tmp_path / name for name in ("one", "again", "other")]
    for tree, seed in zip(trees, (3, 3, 4), strict=True):
        simulate(tree, size=SHORT, seed=seed)
    files = sorted(path.relative_to(trees[0]) for path in trees[0].rglob("*") if path.is_file())
    plain = [name for name in files if name.suffix not in (".gz", ".mat")]  # those two hold the time
    assert len(plain) > 8
    for name in plain:
        assert digest(trees[0] / name) == digest(trees[1] / name), name
    betas = [Read(tree, 1).betas() for tree in trees]
    assert np.array_equal(betas[0], betas[1])
    assert not np.array_equal(betas[0], betas[2])


def test_betas_follow_the_order_of_the_design(tree: Path, first: Read) -> None:
    truth, ids, betas = Truth.load(tree, 1), first.ids(), first.betas()
    mean = truth.mean(ids)
    centred, expected = betas - betas.mean(axis=0), mean - mean.mean(axis=0)
    strong = truth.ncsnr > np.median(truth.ncsnr)
    z, t = (part[:, strong] / part[:, strong].std(axis=0) for part in (centred, expected))
    matched = (z * t).mean(axis=1)
    shifted = (z * np.roll(t, 1, axis=0)).mean(axis=1)
    assert matched.mean() > 0.4
    assert abs(shifted.mean()) < 0.05


def test_repeat_means_approach_the_true_mean(tree: Path, first: Read) -> None:
    truth, ids, betas = Truth.load(tree, 1), first.ids(), first.betas()
    means = pd.DataFrame(betas).groupby(ids).mean()
    expected = truth.mean(means.index)
    r = [np.corrcoef(means.to_numpy()[:, v], expected[:, v])[0, 1] for v in range(truth.n_voxels)]
    ceiling = np.sqrt(truth.ncsnr**2 / (truth.ncsnr**2 + 1 / 3))
    assert np.mean(r) == pytest.approx(ceiling.mean(), abs=0.05)
    assert spearmanr(r, ceiling).statistic > 0.8
    assert np.abs(means.to_numpy() - expected).mean() < np.abs(betas - truth.mean(ids)).mean()


def test_ncsnr_file_agrees_with_the_betas_and_the_truth(tree: Path, first: Read) -> None:
    path = tree / BETAS.format(1) / "ncsnr.nii.gz"
    written = np.asarray(nib.load(path).dataobj)[first.mask]
    n = SIZE.trials_per_session
    betas = first.betas()
    z = np.concatenate([(b - b.mean(0)) / b.std(0, ddof=1) for b in np.split(betas, len(betas) // n)])
    noise = pd.DataFrame(z).groupby(first.ids()).var().mean().to_numpy()
    estimate = np.sqrt(np.clip(1 - noise, 0, None) / noise)
    assert spearmanr(written, estimate).statistic > 0.97
    assert spearmanr(written, Truth.load(tree, 1).ncsnr).statistic > 0.8
    assert 0.3 < np.median(written) < 0.6
    low, high = np.quantile(written, [0.05, 0.95])
    assert high > 3 * low


def test_samples_vary_as_the_written_trials_do(tree: Path, first: Read) -> None:
    truth, ids = Truth.load(tree, 1), first.ids()
    measured = within_image(first.betas(), ids)
    shown = np.unique(ids)
    draws = truth.sample(shown, 4, seed=5)
    assert draws.shape == (4, len(shown), truth.n_voxels)
    sampled = (draws - truth.mean(shown)).reshape(-1, truth.n_voxels)
    assert np.mean(measured.var(0) / sampled.var(0)) == pytest.approx(1, abs=0.1)
    assert np.corrcoef(measured.var(0), sampled.var(0))[0, 1] > 0.95
    upper = np.triu_indices(truth.n_voxels, 1)
    covariances = [np.cov(part.T)[upper] for part in (measured, sampled)]
    assert np.corrcoef(*covariances)[0, 1] > 0.8
    assert np.mean(covariances[0]) == pytest.approx(np.mean(covariances[1]), rel=0.35)
    assert np.allclose(truth.variance(shown).mean(0), sampled.var(0), rtol=0.35)
    assert np.array_equal(draws, truth.sample(shown, 4, seed=5))
    assert not np.array_equal(draws, truth.sample(shown, 4, seed=6))


def test_noise_parameters_can_be_recovered(tree: Path, first: Read) -> None:
    truth, ids, betas = Truth.load(tree, 1), first.ids(), first.betas()
    mean = truth.mean(ids)
    weight = mean / truth.noise.independent**2
    gain = np.sum(weight * betas, axis=1) / np.sum(weight * mean, axis=1)
    assert gain.mean() == pytest.approx(1, abs=0.05)
    residual = betas - mean
    shared = np.linalg.svd((residual / residual.std(0)), compute_uv=False) ** 2
    assert shared[:8].sum() / shared.sum() > 0.25  # independent noise alone would give 8 / 200
    per_session = residual.reshape(4, SIZE.trials_per_session, -1).mean(axis=1)
    by_chance = residual.var(axis=0).mean() / SIZE.trials_per_session
    assert per_session.var(axis=0).mean() > 2 * by_chance


@pytest.mark.parametrize(
    ("volume", "category"),
    [("floc-faces", "face"), ("floc-bodies", "body"), ("floc-places", "place"), ("floc-words", "word")],
)
def test_selective_voxels_prefer_their_category(tree: Path, first: Read, volume: str, category: str) -> None:
    table = image_categories(tree).set_index("nsdId")["category"]
    shown = table.loc[first.ids()].to_numpy()
    inside = first.betas()[:, first.roi(volume)[first.mask] > 0].mean(axis=1)
    means = pd.Series(inside).groupby(shown).mean()
    assert means.idxmax() == category
    outside = inside[shown != category]
    assert (means[category] - outside.mean()) / outside.std() > 0.5


def test_early_voxels_see_their_own_side(tree: Path, first: Read) -> None:
    """Objects on the left drive early voxels of the right hemisphere more than those of the left."""
    table = image_categories(tree)
    mean = Truth.load(tree, 1).means
    z = (mean - mean.mean(0)) / mean.std(0)
    early = first.roi("streams")[first.mask] == 1
    right = first.roi("rh.nsdgeneral")[first.mask] == 1
    alone = (table["second"] == "") & (table["category"] != "place")
    difference = z[:, early & right].mean(1) - z[:, early & ~right].mean(1)
    assert np.corrcoef(difference[alone], table.loc[alone, "x"])[0, 1] < -0.3


def test_the_mean_map_is_as_strong_as_nsds(first: Read) -> None:
    betas = first.betas()
    average = betas.mean(axis=0)
    pearson = np.mean([np.corrcoef(average, trial)[0, 1] for trial in betas[::7]])
    assert 0.55 < pearson < 0.8


def test_noise_levels_order_ncsnr_and_leave_the_means(tmp_path: Path) -> None:
    truths = {}
    for level in ("low", "medium", "high"):
        simulate(tmp_path / level, size=SHORT, noise=level)
        truths[level] = Truth.load(tmp_path / level, 1)
    medians = [float(np.median(truth.ncsnr)) for truth in truths.values()]
    assert medians[0] > 1.5 * medians[1] > 2 * medians[2]
    assert np.array_equal(truths["low"].means, truths["high"].means)


def test_refusals_say_the_mend(tree: Path, tmp_path: Path) -> None:
    before = digest(tree / "truth/subj01/mean.npy")
    with pytest.raises(SynBrainError, match="--overwrite"):
        simulate(tree, size=SIZE)
    assert digest(tree / "truth/subj01/mean.npy") == before
    with pytest.raises(SynBrainError, match="tiny, demo"):
        simulate(tmp_path / "a", size="huge")
    with pytest.raises(SynBrainError, match="low, medium or high"):
        simulate(tmp_path / "a", size=SIZE, noise="loud")
    with pytest.raises(SynBrainError, match="each subject"):
        simulate(tmp_path / "a", size=SIZE, sessions=[9])
    with pytest.raises(SynBrainError, match="cortical voxels"):
        simulate(tmp_path / "a", size=SimulationSize(30, 6, 1, 60, (6, 6, 6), 9.0, 100, 32))
    with pytest.raises(SynBrainError, match="repeats"):
        SimulationSize(30, 6, 2, 60, (6, 6, 6), 9.0, 100, 32)
    with pytest.raises(SynBrainError, match="no truth of subject 7"):
        Truth.load(tree, 7)
    with pytest.raises(SynBrainError, match="0-based"):
        Truth.load(tree, 1).mean([10**6])
    assert list(tmp_path.iterdir()) == []
