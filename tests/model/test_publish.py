"""``synbrain push`` against a hub that is a folder here."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.data.known_pictures import KnownPictures
from synbrain.errors import SynBrainError
from synbrain.files import WORK
from synbrain.model.folder import demo_dataset
from synbrain.model.publish import push_run
from synbrain.model.synbrain import SynBrain


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What create_repo and upload_folder were told; uploads land in ``tmp_path/hub``."""
    import huggingface_hub

    calls: list[tuple[str, dict[str, Any]]] = []

    class Fake:
        def create_repo(self, name: str, **options: Any) -> str:
            calls.append((name, options))
            return f"https://hub.test/{name}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Fake)
    return calls


def test_a_run_goes_up_private_and_comes_back_whole(
    hub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(demo_dataset().with_name("run"), run)
    (run / "training").mkdir()
    (run / "training" / "log.jsonl").write_text("not for others")
    assert main(["push", str(run), "lab/simulated", "--data-licence", "CC0 (simulated)"]) == 0
    assert hub == [("lab/simulated", {"private": True, "exist_ok": True})]
    assert "https://hub.test/lab/simulated (private)" in capsys.readouterr().out
    uploaded = tmp_path / "hub" / "lab" / "simulated"
    assert not (uploaded / "training").exists()
    card = (uploaded / "README.md").read_text()
    assert "CC0 (simulated)" in card
    assert "voxel_r" in card
    again, before = (SynBrain.from_pretrained(folder) for folder in (uploaded, run))
    assert again.subject().n_voxels == before.subject().n_voxels


def test_thumbnails_of_pictures_that_go_up_are_told(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORK, str(tmp_path / "work"))  # not beside the demo's dataset
    dataset = load_dataset(demo_dataset())
    run = SynBrain.from_pretrained(demo_dataset().with_name("run"))
    run.known_pictures = KnownPictures.of(dataset, dataset.image_rows("test")[:3])
    run.save_pretrained(tmp_path / "run")
    push_run(tmp_path / "run", "lab/seen", data_licence="CC0")
    uploaded = tmp_path / "hub" / "lab" / "seen"
    assert SynBrain.from_pretrained(uploaded).known_pictures.marks == run.known_pictures.marks
    assert (
        "`pictures.safetensors` holds thumbnails (32 x 32 grey pixels) of the 3 images"
        in (uploaded / "README.md").read_text()
    )


def test_what_cannot_go_up_is_told(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = demo_dataset().with_name("run")
    with pytest.raises(SynBrainError, match="licence"):
        push_run(run, "lab/x", data_licence=" ")
    with pytest.raises(SynBrainError, match="ORGANISATION/NAME"):
        push_run(run, "x", data_licence="CC0")
    with pytest.raises(SynBrainError, match="not a finished run"):
        push_run(tmp_path, "lab/x", data_licence="CC0")
    assert hub == []

    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("403 Forbidden\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(SynBrainError, match="403 Forbidden"):
        push_run(run, "lab/x", data_licence="CC0")
