"""``synbrain download nsd``."""

from __future__ import annotations

from pathlib import Path

from synbrain.prepare.nsd.bucket import open_bucket
from synbrain.prepare.nsd.download import (
    BUCKET,
    Betas,
    FileFormat,
    Space,
    fetch_plan,
    plan_nsd,
    require_terms,
)


def download_nsd(
    dest: Path,
    *,
    subjects: list[int],
    sessions: str = "all",
    accept_terms: bool = False,
    dry_run: bool = False,
    betas: Betas = "betas_fithrf_GLMdenoise_RR",
    space: Space = "func1pt8mm",
    format: FileFormat = "nii.gz",
    no_stimuli: bool = False,
    workers: int = 4,
    endpoint_url: str | None = None,
    bucket: str = BUCKET,
    overwrite: bool = False,
) -> None:
    """Fetch the Natural Scenes Dataset; run the same command again to go on after any interruption.

    Args:
        dest: folder to fetch into; it gets the bucket's layout, which `synbrain prepare nsd` reads.
        subjects: numbers from 1 to 8.
        sessions: all, or how many, from the first.
        accept_terms: you accept NSD's terms and filled in its form; nothing is fetched without.
        dry_run: say what would be fetched and how many GB, and stop.
        betas: the beta version.
        space: the subject's own volume at 1.8 mm, or the fsaverage surface.
        format: file format of the volume betas; hdf5 needs no decompression of whole sessions.
        no_stimuli: leave out the images.
        workers: files fetched at once.
        endpoint_url: another S3 server than Amazon's (a mirror).
        bucket: the bucket's name.
        overwrite: replace files that differ and that no download put there.
    """
    source = open_bucket(bucket, endpoint_url)
    plan = plan_nsd(
        source,
        subjects,
        sessions=sessions,
        betas=betas,
        space=space,
        file_format=format,
        stimuli=not no_stimuli,
    )
    print(plan.describe(), flush=True)
    if dry_run:
        return
    require_terms(accept_terms)
    done = fetch_plan(source, plan, dest, workers=workers, overwrite=overwrite, show_progress=True)
    print(
        f"{len(done.fetched)} files fetched ({done.n_bytes / 1e9:.3f} GB), {len(done.present)} were there; "
        f"all {len(plan.files)} verified in {dest}"
    )
    print("next: synbrain prepare nsd", dest, f"OUT --subject {subjects[0]}")
