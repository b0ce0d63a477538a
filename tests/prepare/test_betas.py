"""Files of betas as other programs write them: NIfTI-2, big-endian, scaled, several gzip members."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from synbrain.errors import SynBrainError
from synbrain.prepare import betas
from synbrain.prepare.betas import Inflater, describe, read_masked

INDEX = np.array([0, 7, 11, 30, 59])


@pytest.fixture
def volumes() -> np.ndarray:
    """(x, y, z, trials) int16."""
    return np.random.default_rng(0).integers(-9000, 9000, (4, 5, 3, 6), dtype=np.int16)


def expected(volumes: np.ndarray) -> np.ndarray:
    return volumes.reshape(60, -1)[INDEX].T


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["b.nii", "b.nii.gz"])
def test_nifti_1_and_2(kind: type, name: str, volumes: np.ndarray, tmp_path: Path) -> None:
    nib.save(kind(volumes, np.diag([2.0, 2, 2, 1])), tmp_path / name)
    about = describe(tmp_path / name)
    assert (about.grid, about.n_trials, about.is_integer) == ((4, 5, 3), 6, True)
    assert np.array_equal(about.affine, np.diag([2.0, 2, 2, 1]))  # type: ignore[arg-type]
    values, _ = read_masked(about, INDEX)
    assert values.dtype == np.int16
    assert np.array_equal(values, expected(volumes))


def test_big_endian(volumes: np.ndarray, tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(volumes, np.eye(4), header), tmp_path / "b.nii.gz")
    assert gzip.decompress((tmp_path / "b.nii.gz").read_bytes())[:4] == b"\0\0\x01\x5c"
    values, _ = read_masked(describe(tmp_path / "b.nii.gz"), INDEX)
    assert values.dtype.isnative
    assert np.array_equal(values, expected(volumes))


def test_scale_factors_are_applied(volumes: np.ndarray, tmp_path: Path) -> None:
    image = nib.Nifti1Image(volumes, np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "b.nii.gz")
    values, _ = read_masked(describe(tmp_path / "b.nii.gz"), INDEX)
    loaded = nib.load(tmp_path / "b.nii.gz").get_fdata()
    assert np.allclose(values, expected(loaded), rtol=1e-6)


@pytest.mark.parametrize("chunks", [(6, 1, 1, 1), (2, 3, 5, 4), None])
def test_hdf5_in_any_layout(
    chunks: tuple[int, ...] | None,
    volumes: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file.create_dataset("betas", data=volumes.transpose(3, 2, 1, 0), chunks=chunks)
    about = describe(tmp_path / "b.hdf5")
    assert (about.grid, about.n_trials) == ((4, 5, 3), 6)
    monkeypatch.setattr(betas, "BLOCK_BYTES", 60 * 2 * 4)  # four trials at a time
    assert np.array_equal(read_masked(about, INDEX)[0], expected(volumes))


def test_hdf5_without_betas_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["other"] = 1
    with pytest.raises(SynBrainError, match="no dataset 'betas'"):
        describe(tmp_path / "b.hdf5")


def test_inflater_reads_several_members_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.random.default_rng(0).bytes(5000) + b"\0" * 200_000
    packed = b"".join(gzip.compress(content[i : i + 30_000]) for i in range(0, len(content), 30_000))
    monkeypatch.setattr(betas, "PIECE", 777)
    monkeypatch.setattr(betas, "INFLATED", 5000)
    stream = Inflater(io.BytesIO(packed + b"\0" * 100))
    got = bytearray()
    while n := stream.readinto(memoryview(part := bytearray(9999))):
        got += part[:n]
    assert bytes(got) == content


def test_inflater_notices_an_early_end() -> None:
    packed = gzip.compress(np.random.default_rng(0).bytes(5000))
    with pytest.raises(EOFError):
        Inflater(io.BytesIO(packed[:-9])).readinto(memoryview(bytearray(6000)))
