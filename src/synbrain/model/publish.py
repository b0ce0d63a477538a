"""A run on the Hugging Face hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from synbrain.data.known_pictures import PICTURES
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import MANIFEST, read_json, write_text
from synbrain.model.card import model_card
from synbrain.model.folder import CARD, SCORES, load_run


def push_run(
    run: Path, name: str, *, data_licence: str, public: bool = False, message: str = "Upload a SynBrain run"
) -> str:
    """Upload the files that a run's manifest lists, its scores, and a card naming the data's licence.

    Args:
        run: folder of a whole run; nothing else that lies in it is sent (training logs, checkpoints).
        name: ORGANISATION/NAME.
        data_licence: licence of the recordings.
        public: make a new repository public; a repository that exists stays as it is.
        message: of the commit.

    Returns:
        the repository's address.

    Raises:
        SynBrainError: where it is no whole run, no licence is named, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if not data_licence.strip():
        raise SynBrainError(
            "the licence of the data is not named", "give --data-licence, such as 'NSD terms'"
        )
    if name.count("/") != 1:
        raise SynBrainError(f"{name!r} is no name on the hub", "give ORGANISATION/NAME")
    parts = load_run(run)  # checks every checksum
    scores = read_json(run / SCORES) if (run / SCORES).is_file() else None
    card = model_card(parts, scores)
    card += (
        f"\n## Data\n\nFitted on recordings under this licence: {data_licence.strip()}. A model of a "
        "person's brain may be personal data: see that its publication is allowed.\n"
    )
    if n := len(parts.known_pictures.marks):
        card += (
            f"\n`{PICTURES}` holds thumbnails (32 x 32 grey pixels) of the {counted(n, 'image')} that it was "
            "trained on or kept from, by which they are known again: see that their licence allows it.\n"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for file in [*read_json(run / MANIFEST), MANIFEST, *([SCORES] if scores is not None else [])]:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / file, folder / file)
        write_text(folder / CARD, card)
        hub = HfApi()
        try:
            address = hub.create_repo(name, private=not public, exist_ok=True)
            hub.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SynBrainError(
                f"{name} could not be uploaded ({reason})",
                "log in with `hf auth login`, and check the name and your rights",
            ) from error
    return str(address)
