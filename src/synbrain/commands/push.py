"""``synbrain push``: a run to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path


def push(
    run: Path,
    name: str,
    *,
    data_licence: str,
    public: bool = False,
    message: str = "Upload a SynBrain run",
) -> None:
    """Upload a run with its card and scores; the repository is private unless --public.

    You must be logged in (hf auth login, or HF_TOKEN).

    Args:
        run: folder of a run.
        name: ORGANISATION/NAME on the hub.
        data_licence: licence of the recordings that the run was fitted on, named in the card.
        public: make a new repository public.
        message: of the commit.
    """
    from synbrain.model.publish import push_run

    address = push_run(run, name, data_licence=data_licence, public=public, message=message)
    print(f"{run} -> {address} ({'public' if public else 'private'})")
