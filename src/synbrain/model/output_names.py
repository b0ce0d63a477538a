"""Names of files of responses: what their suffix says, and what is written beside them. Nothing heavy."""

from __future__ import annotations

from pathlib import Path

from synbrain.errors import SynBrainError
from synbrain.files import require_absent

HEMISPHERE_TAGS = ("_hemi-L", "_hemi-R")
# suffix -> form; two suffixes may name one form
FORM_OF = {
    ".npy": "npy",
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".func.gii": "gifti",
    ".shape.gii": "gifti",
    ".dscalar.nii": "cifti",
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
    """What is written for ``out``: itself, or a file a hemisphere for GIfTI."""
    if not suffix.endswith(".gii"):
        return [out]
    stem = out.name[: -len(suffix)]
    return [out.with_name(stem + tag + suffix) for tag in HEMISPHERE_TAGS]


def sidecar_of(out: Path) -> Path:
    """``responses.npy``, ``responses.nii.gz`` or ``responses.func.gii`` -> ``responses.json``."""
    suffix = _known_suffix(out) or out.suffix
    return out.with_name(out.name[: len(out.name) - len(suffix)] + ".json")


def require_free(out: Path, *, format: str | None = None, overwrite: bool = False) -> str:
    """The suffix of ``out``, where its name says a format and nothing stands there.

    Raises:
        SynBrainError: where ``out`` exists, or its format is unknown or contradicts ``format``.
    """
    suffix = suffix_of(out, format)
    for path in (*files_of(out, suffix), sidecar_of(out)):
        require_absent(path, overwrite)
    if out.is_dir():
        raise SynBrainError(f"{out} is a folder", "name a file")
    return suffix
