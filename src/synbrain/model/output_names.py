"""Names of files of responses: what their suffix says, and what is written beside them. Nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synbrain.errors import SynBrainError
from synbrain.files import alone, read_json, require_absent

HEMISPHERE_FORMS = {"gifti": "GIfTI", "mgh": "MGH"}  # which take a file a hemisphere
# how a name says its hemisphere: FreeSurfer's lh.NAME, BIDS's NAME_hemi-L
SIDE = re.compile(r"^[lr]h(?=\.|$)|(?:^|_)hemi-[LR](?=_|\.|$)")
# suffix -> form; two suffixes may name one form
FORM_OF = {
    ".npy": "npy",
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".func.gii": "gifti",
    ".shape.gii": "gifti",
    ".mgh": "mgh",
    ".mgz": "mgh",
    ".dscalar.nii": "cifti",
    ".dtseries.nii": "cifti",
    ".csv": "csv",
    ".parquet": "parquet",
    ".nc": "netcdf",
}


def suffix_of(out: Path, format: str | None = None) -> str:
    """The suffix of ``out`` that decides how it is written.

    Args:
        out: the file's name.
        format: a form of :data:`FORM_OF` that must agree with it; None: the suffix alone decides.

    Raises:
        SynBrainError: where no writer knows it, or ``format`` says another.
    """
    suffix = _known_suffix(out)
    if suffix is None or out.name.lower() == suffix:
        raise SynBrainError(f"{out} names no format that is known", f"end it in one of {', '.join(FORM_OF)}")
    if format is not None and FORM_OF[suffix] != format:
        usual = next(suffix for suffix, form in FORM_OF.items() if form == format)
        raise SynBrainError(f"--format {format} contradicts the name {out.name}", f"end it in {usual}")
    return suffix


def _known_suffix(out: Path) -> str | None:
    name = out.name.lower()
    # the longest first: .dscalar.nii is no .nii
    return next((s for s in sorted(FORM_OF, key=len, reverse=True) if name.endswith(s)), None)


def files_of(out: Path, suffix: str) -> list[Path]:
    """What is written for ``out``: itself, or a file a hemisphere for GIfTI and MGH.

    A name that says one hemisphere stands for both.

    >>> [path.name for path in files_of(Path("x.mgh"), ".mgh")]
    ['lh.x.mgh', 'rh.x.mgh']
    >>> [path.name for path in files_of(Path("x_hemi-L_y.func.gii"), ".func.gii")]
    ['x_hemi-L_y.func.gii', 'x_hemi-R_y.func.gii']
    """
    form, stem = FORM_OF[suffix], _stem(out, suffix)
    if form not in HEMISPHERE_FORMS:
        return [out]
    said = SIDE.search(stem)
    if said is not None:
        sides = ("lh", "rh") if said[0] in ("lh", "rh") else (f"{said[0][:-1]}L", f"{said[0][:-1]}R")
        stems = [SIDE.sub(side, stem, count=1) for side in sides]
    else:
        stems = [f"lh.{stem}", f"rh.{stem}"] if form == "mgh" else [f"{stem}_hemi-L", f"{stem}_hemi-R"]
    return [out.with_name(one + out.name[len(stem) :]) for one in stems]


def sidecar_of(out: Path) -> Path:
    """``responses.npy``, ``responses.nii.gz`` or ``lh.responses.mgh`` -> ``responses.json``."""
    suffix = _known_suffix(out) or out.suffix
    stem = _stem(out, suffix)
    if FORM_OF.get(suffix) in HEMISPHERE_FORMS:
        stem = SIDE.sub("", stem, count=1).lstrip("._") or stem
    return out.with_name(stem + ".json")


def _stem(out: Path, suffix: str) -> str:
    return out.name[: len(out.name) - len(suffix)]


def described_by(sidecar: Path) -> list[Path]:
    """Files that ``sidecar`` describes; none where it is no sidecar of responses."""
    try:
        about = read_json(sidecar)
    except SynBrainError:
        return []
    if not isinstance(about, dict) or not {"axes", "images"} <= about.keys():
        return []
    if "files" in about:
        return [sidecar.with_name(name) for name in about["files"]]
    # written before sidecars named their files: whatever of the name stands there
    named = [(suffix, sidecar.with_name(sidecar.stem + suffix)) for suffix in FORM_OF]
    return [path for suffix, out in named for path in files_of(out, suffix) if path.exists()]


def require_free(out: Path, *, format: str | None = None, overwrite: bool = False) -> str:
    """The suffix of ``out``, where its name says a format and nothing stands there.

    Raises:
        SynBrainError: where ``out`` exists, its format is unknown or contradicts ``format``, or the name of
            its sidecar is taken by the sidecar of another output or by another JSON file; these are kept even
            under ``overwrite``.
    """
    suffix = suffix_of(out, format)
    if out.is_dir():
        raise SynBrainError(f"{out} is a folder", "name a file")
    for path in files_of(out, suffix):
        require_absent(path, overwrite)
    _require_own_sidecar(out, suffix)
    require_absent(sidecar_of(out), overwrite)
    return suffix


def _require_own_sidecar(out: Path, suffix: str) -> None:
    """Refuse a sidecar that is not of ``out``: as in BIDS, a name without its suffix has one."""
    sidecar = sidecar_of(out)
    if not sidecar.is_file():
        return
    described = described_by(sidecar)
    if set(files_of(out, suffix)) & set(described):
        return
    other = next((path for path in described if path.exists()), None)
    if other is not None:
        raise SynBrainError(f"{sidecar} describes {other.name} already", "choose another name or folder")
    if not described and sidecar.read_bytes():
        raise SynBrainError(
            f"{sidecar}, which would describe {out.name}, is another file", "choose another name or folder"
        )


@contextmanager
def making(out: Path) -> Iterator[None]:
    """Be the only process that makes ``out`` and its sidecar, as :func:`synbrain.files.alone`."""
    with alone(out), alone(sidecar_of(out)):
        yield
