"""Files of responses, opened by the tools that people use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fixtures.noise import plain_noise
from synbrain.data.space import Atlas, VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.files import read_json, write_json
from synbrain.linear.path import LinearPath
from synbrain.model.options import PredictOptions
from synbrain.model.output_names import suffix_of
from synbrain.model.outputs import Responses, require_output, write_responses
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.prediction import predict_to
from synbrain.model.synbrain import SynBrain
from synbrain.model.synthesis import synthesize

SHAPE = (20, 24, 20)
EVERYTHING = PredictOptions(sd=True, interval=0.8, samples=400)


def model_on(space: VoxelSpace) -> SynBrain:
    n = space.n_voxels
    encoder = get_encoder("pixels")
    layer = encoder.default_layer
    shape = encoder.layers[layer]
    rng = np.random.default_rng(0)
    ones = np.ones(n, dtype=np.float32)
    projection = rng.normal(size=(shape[0] * shape[1], 3)).astype(np.float32) / 100
    mixing = rng.normal(size=(3, n)).astype(np.float32)
    linear = LinearPath({layer: projection}, mixing, 0 * ones, {layer: shape}, {})
    loadings = np.full((n, 1), 0.8, dtype=np.float32)  # voxels vary together
    noise = plain_noise(loadings, variance=3, error_variance=1)
    part = SubjectPart("s1", space, "percent", 0 * ones, ones, linear=linear, noise=noise)
    config = RunConfig(encoder="pixels", encoder_digest=encoder.digest, linear_layers=(layer,))
    return SynBrain(config, {"s1": part})


@pytest.fixture
def volume() -> VoxelSpace:
    """Voxels around the back of the head, MNI mm."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-40, -108, -40]
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:18, 1:8, 6:14] = True
    n = int(mask.sum())
    atlas = Atlas((np.arange(n) % 2 + 1).astype(np.int32), {1: "V1", 2: "V2"}, "made up")
    return VoxelSpace.from_mask(mask, affine, atlases={"prf": atlas}, in_mni=True)


@pytest.fixture
def surface() -> VoxelSpace:
    index = np.array([5, 100, 10242 + 7, 10242 + 10000])
    return VoxelSpace(4, "surface", (10242, 10242), None, index)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    files = [tmp_path / "in" / f"{i}.png" for i in range(3)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(file)
    return files


def test_npy_and_its_sidecar(volume: VoxelSpace, pictures: list[Path], tmp_path: Path) -> None:
    model = model_on(volume)
    written = predict_to(model, pictures, EVERYTHING, out=tmp_path / "y.npy")
    assert written == [tmp_path / "y.npy", tmp_path / "y.json"]
    values, about = np.load(written[0]), read_json(written[1])
    assert about["maps"] == ["expected", "sd", "lower_80", "upper_80"]
    np.testing.assert_array_equal(values[0], model.predict(pictures))
    np.testing.assert_allclose(values[1], 2.0, rtol=1e-5)
    # the interval is that of a normal with sd 2
    np.testing.assert_allclose(values[3] - values[0], 2 * 1.2816, rtol=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "y.json", "y.npy"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("y.npy", "y.nii.gz"), ("y.dscalar.nii", "y.npy"), ("y.func.gii", "y.csv"), ("y.csv", "y.parquet")],
)
def test_one_sidecar_describes_one_output(
    volume: VoxelSpace, pictures: list[Path], tmp_path: Path, first: str, second: str
) -> None:
    model = model_on(volume)
    written = predict_to(model, pictures, out=tmp_path / first)
    about = read_json(tmp_path / "y.json")
    assert about["files"] == [path.name for path in written[:-1]]
    for overwrite in (False, True):  # what describes another file is never replaced
        with pytest.raises(SynBrainError, match=r"y\.json describes .* already: choose another name"):
            predict_to(model, pictures, out=tmp_path / second, overwrite=overwrite)
        with pytest.raises(SynBrainError, match=r"y\.json describes .* already: choose another name"):
            synthesize(model, pictures, out=tmp_path / second, overwrite=overwrite)
    assert read_json(tmp_path / "y.json") == about
    with pytest.raises(SynBrainError, match="exists already: pass --overwrite"):
        predict_to(model, pictures, out=tmp_path / first)
    synthesize(model, pictures, out=tmp_path / first, overwrite=True)
    assert read_json(tmp_path / "y.json")["maps"][0] == "trial_0" if first != "y.npy" else True
    (tmp_path / "y.json").rename(tmp_path / "z.json")  # without the sidecar of the first the name is free
    predict_to(model, pictures, out=tmp_path / second)


def test_sidecars_of_earlier_versions_belong_to_what_stands_there(
    volume: VoxelSpace, pictures: list[Path], tmp_path: Path
) -> None:
    model = model_on(volume)
    predict_to(model, pictures, out=tmp_path / "y.npy")
    about = read_json(tmp_path / "y.json")
    del about["files"]
    write_json(tmp_path / "y.json", about)
    with pytest.raises(SynBrainError, match=r"y\.json describes y\.npy already"):
        predict_to(model, pictures, out=tmp_path / "y.csv", overwrite=True)
    predict_to(model, pictures, out=tmp_path / "y.npy", overwrite=True)
    (tmp_path / "y.npy").unlink()  # what it described is gone
    predict_to(model, pictures, out=tmp_path / "y.csv", overwrite=True)
    assert read_json(tmp_path / "y.json")["files"] == ["y.csv"]


def test_nifti_opens_in_nilearn(volume: VoxelSpace, pictures: list[Path], tmp_path: Path) -> None:
    from nilearn import image, masking

    model = model_on(volume)
    predict_to(model, pictures, PredictOptions(sd=True), out=tmp_path / "y.nii.gz")
    loaded = image.load_img(tmp_path / "y.nii.gz")
    assert loaded.shape == (*SHAPE, 6)
    assert loaded.header.get_xyzt_units()[0] == "mm"
    assert b"expected..sd (percent)" in bytes(loaded.header["descrip"])
    mask = volume.to_nifti(np.ones(volume.n_voxels))
    np.testing.assert_allclose(
        masking.apply_mask(loaded, mask)[2], model.predict(pictures)[1], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("suffix", [".func.gii", ".shape.gii"])
def test_gifti_opens_in_nilearn(
    volume: VoxelSpace, surface: VoxelSpace, pictures: list[Path], tmp_path: Path, suffix: str
) -> None:
    from nilearn.surface import load_surf_data

    written = predict_to(model_on(surface), pictures, out=tmp_path / f"s{suffix}")
    assert [p.name for p in written] == [f"s_hemi-L{suffix}", f"s_hemi-R{suffix}", "s.json"]
    expected = model_on(surface).predict(pictures)
    left, right = (load_surf_data(path) for path in written[:2])
    assert left.shape == (10242, 3)
    np.testing.assert_allclose(left[100], expected[:, 1], rtol=1e-5)
    np.testing.assert_allclose(right[10000], expected[:, 3], rtol=1e-5)
    assert np.isfinite(left).sum() == 2 * 3
    # a volume in MNI space lands on fsaverage5
    written = predict_to(model_on(volume), pictures, out=tmp_path / f"v{suffix}")
    gifti = nib.load(written[1])
    assert gifti.meta["AnatomicalStructurePrimary"] == "CortexRight"
    assert gifti.darrays[1].meta["Name"].endswith("1.png expected")
    assert np.isfinite(gifti.darrays[0].data).sum() > 300


@pytest.mark.parametrize(
    ("name", "left", "right", "sidecar"),
    [
        ("x.mgh", "lh.x.mgh", "rh.x.mgh", "x.json"),
        ("lh.x.mgh", "lh.x.mgh", "rh.x.mgh", "x.json"),
        ("rh.x.MGZ", "lh.x.MGZ", "rh.x.MGZ", "x.json"),
        ("lh.mgh", "lh.mgh", "rh.mgh", "lh.json"),
        ("lhx.mgh", "lh.lhx.mgh", "rh.lhx.mgh", "lhx.json"),
        ("s_hemi-R_y.func.gii", "s_hemi-L_y.func.gii", "s_hemi-R_y.func.gii", "s_y.json"),
        ("hemi-L_y.shape.gii", "hemi-L_y.shape.gii", "hemi-R_y.shape.gii", "y.json"),
        ("lh.x.func.gii", "lh.x.func.gii", "rh.x.func.gii", "x.json"),
    ],
)
def test_a_name_that_says_one_hemisphere_stands_for_both(
    surface: VoxelSpace, tmp_path: Path, name: str, left: str, right: str, sidecar: str
) -> None:
    responses = Responses(np.ones((1, 2, 4), np.float32), ["expected"], ["a", "b"], surface, "%")
    require_output(tmp_path / name, surface)
    written = write_responses(tmp_path / name, responses)
    assert [path.name for path in written] == [left, right, sidecar]
    assert read_json(written[2])["files"] == [left, right]
    for again in (left, right):  # whichever is named, both stand there
        with pytest.raises(SynBrainError, match="exists already"):
            require_output(tmp_path / again, surface)
    require_output(tmp_path / right, surface, overwrite=True)


@pytest.mark.parametrize("kind", ["volume", "surface"])
def test_cifti_opens_in_nibabel(
    kind: str, request: pytest.FixtureRequest, pictures: list[Path], tmp_path: Path
) -> None:
    space: VoxelSpace = request.getfixturevalue(kind)
    model = model_on(space)
    predict_to(model, pictures, out=tmp_path / "y.dscalar.nii")
    cifti = nib.load(tmp_path / "y.dscalar.nii")
    maps, brain = (cifti.header.get_axis(i) for i in range(2))
    np.testing.assert_allclose(cifti.get_fdata(), model.predict(pictures), rtol=1e-5)
    assert maps.name[2].endswith("2.png expected")
    if kind == "volume":
        places = np.stack(np.unravel_index(space.index, space.shape), axis=1)
        np.testing.assert_array_equal(brain.voxel, places)
        np.testing.assert_array_equal(brain.affine, space.affine)
    else:
        assert set(brain.name) == {"CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"}
        np.testing.assert_array_equal(brain.vertex, [5, 100, 7, 10000])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_open_in_pandas(volume: VoxelSpace, pictures: list[Path], tmp_path: Path, suffix: str) -> None:
    model = model_on(volume)
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    predict_to(model, pictures, EVERYTHING, out=tmp_path / f"y{suffix}")
    table = read(tmp_path / f"y{suffix}")
    assert list(table) == ["image", "voxel", "expected", "sd", "lower_80", "upper_80"]
    mine = table[table["image"] == str(pictures[2])].set_index("voxel")
    np.testing.assert_allclose(mine["expected"], model.predict(pictures)[2], rtol=1e-5)


def test_the_sd_of_an_roi_is_that_of_its_mean(
    volume: VoxelSpace, pictures: list[Path], tmp_path: Path
) -> None:
    model = model_on(volume)
    predict_to(model, pictures, EVERYTHING.model_copy(update={"by": "roi"}), out=tmp_path / "y.csv")
    table = pd.read_csv(tmp_path / "y.csv")
    assert set(table["roi"]) == {"prf/V1", "prf/V2"}
    expected = model.predict(pictures)[:, ::2].mean(axis=1)
    np.testing.assert_allclose(table.loc[table["roi"] == "prf/V1", "expected"], expected, rtol=1e-4)
    # loadings .8 in every voxel: the common part stays, 2 * .8, the voxels' own parts average out
    np.testing.assert_allclose(table["sd"], 1.6, rtol=0.12)


def test_netcdf_opens_in_xarray(volume: VoxelSpace, pictures: list[Path], tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
    model = model_on(volume)
    predict_to(model, pictures, PredictOptions(sd=True), out=tmp_path / "y.nc")
    with xarray.open_dataset(tmp_path / "y.nc") as opened:
        assert opened["expected"].dims == ("image", "voxel")
        assert opened.attrs["unit"] == "percent"
        v2 = opened["expected"].sel(image=str(pictures[1]))[opened["prf"].values == "V2"]
        np.testing.assert_allclose(v2, model.predict(pictures)[1, 1::2], rtol=1e-5)
        np.testing.assert_allclose(opened["y"], volume.coordinates()[:, 1])
    predict_to(model, pictures, PredictOptions(by="roi"), out=tmp_path / "r.nc")
    with xarray.open_dataset(tmp_path / "r.nc") as opened:
        assert opened["expected"].sel(roi="prf/V1").shape == (3,)


def test_what_cannot_be_written_is_told_first(
    volume: VoxelSpace, surface: VoxelSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predicted(*_: object, **__: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(SynBrain, "iter_means", predicted)
    plain = VoxelSpace(3)
    native = replace(volume, in_mni=False)
    for space, name, words in (
        (surface, "y.nii.gz", "surface space cannot"),
        (plain, "y.nii", "none space cannot"),
        (plain, "y.dscalar.nii", "no CIFTI form"),
        (native, "y.func.gii", "no known place"),
        (volume, "y.txt", "names no format"),
        (volume, "y", "names no format"),
        (volume, ".npy", "names no format"),
    ):
        with pytest.raises(SynBrainError, match=words):
            predict_to(model_on(space), [tmp_path], out=tmp_path / name)
    with pytest.raises(SynBrainError, match="ROI means have no"):
        require_output(tmp_path / "y.nii.gz", volume, by_roi=True)
    with pytest.raises(SynBrainError, match="contradicts"):
        suffix_of(tmp_path / "y.npy", "nifti")
    assert suffix_of(tmp_path / "Y.NII", "nifti") == ".nii"
    (tmp_path / "y_hemi-R.func.gii").write_text("precious")
    with pytest.raises(SynBrainError, match="exists already"):
        require_output(tmp_path / "y.func.gii", volume)
    assert not list(tmp_path.glob(".y*"))


def test_a_failure_leaves_nothing(volume: VoxelSpace, pictures: list[Path], tmp_path: Path) -> None:
    pictures[2].write_bytes(b"broken")
    with pytest.raises(SynBrainError, match="cannot be read"):
        predict_to(model_on(volume), pictures, PredictOptions(batch_size=1), out=tmp_path / "y.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_voxels_keep_their_order_in_cifti(tmp_path: Path) -> None:
    index = np.array([7, 2, 5])
    space = VoxelSpace(3, "volume", (2, 2, 2), np.eye(4), index)
    values = np.array([[[70.0, 20, 50]]], dtype=np.float32)
    write_responses(tmp_path / "y.dscalar.nii", Responses(values, ["expected"], ["a"], space, "%"))
    cifti = nib.load(tmp_path / "y.dscalar.nii")
    brain = cifti.header.get_axis(1)
    flat = np.ravel_multi_index(tuple(brain.voxel.T), (2, 2, 2))
    np.testing.assert_array_equal(cifti.get_fdata()[0], 10.0 * flat)


def test_a_model_tells_what_it_is(volume: VoxelSpace) -> None:
    model = model_on(volume)
    assert "s1 (896 voxels, percent)" in repr(model)
    assert "linear path, trial noise" in repr(model)
    assert "<table>" in model._repr_html_()
