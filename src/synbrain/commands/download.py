"""``synbrain download nsd``: the plan is printed before anything is fetched."""

from __future__ import annotations

from pathlib import Path

from synbrain.prepare.nsd.options import DownloadOptions

DEFAULTS = DownloadOptions()


def download_nsd(
    dest: Path,
    *,
    subjects: list[int],
    options: DownloadOptions = DEFAULTS,
    accept_terms: bool = False,
    dry_run: bool = False,
    workers: int = 4,
    overwrite: bool = False,
) -> None:
    """Fetch the Natural Scenes Dataset; run the same command again to go on after any interruption.

    Args:
        dest: folder to fetch into; it gets the bucket's layout, which `synbrain prepare nsd` reads.
        subjects: numbers from 1 to 8.
        options: which files, and from where.
        accept_terms: you accept NSD's terms and filled in its form; nothing is fetched without.
        dry_run: say what would be fetched and how many GB, and stop.
        workers: files fetched at once.
        overwrite: replace files that differ and that no download put there.
    """
    from synbrain.prepare.nsd.bucket import open_bucket
    from synbrain.prepare.nsd.download import fetch_plan, plan_nsd, require_terms

    source = open_bucket(options.bucket, options.endpoint_url)
    plan = plan_nsd(source, subjects, options)
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
