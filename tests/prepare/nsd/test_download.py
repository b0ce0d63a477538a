"""What is downloaded of NSD, from a real S3 server on loopback: plans, terms, files that stand there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from synbrain.cli import main
from synbrain.errors import SynBrainError
from synbrain.prepare.nsd.bucket import Retrying, open_bucket
from synbrain.prepare.nsd.download import fetch_plan, plan_nsd
from synbrain.prepare.nsd.options import BUCKET, DownloadOptions

pytest.importorskip("moto.server")

FAST = Retrying(attempts=4, first_wait=0.01, longest=0.05)
BETAS = "nsddata_betas/ppdata/subj{:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session{:02d}.nii.gz"


def test_plan_takes_every_session_and_says_where_one_is_missing(nsd_server: Any) -> None:
    _, proxy, held = nsd_server
    plan = plan_nsd(open_bucket(BUCKET, proxy.url), [1, 3])
    keys = {file.key for file in plan.files}
    assert {BETAS.format(1, n + 1) for n in range(40)} <= keys  # the published script stops at 39
    assert keys == set(held) - {"nsddata_stimuli/stimuli/nsd/other.bin"}
    assert plan.n_bytes == sum(len(held[key]) for key in keys)
    assert any("subject 3" in note and "31" in note and "32" in note for note in plan.notes)
    assert "40" not in " ".join(plan.notes)


def test_dry_run_fetches_nothing_and_names_the_terms(
    nsd_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, proxy, _ = nsd_server
    words = ["download", "nsd", str(tmp_path / "nsd"), "--subjects", "1", "3", "--endpoint-url", proxy.url]
    assert main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "GB" in printed
    assert "Terms-and-Conditions" in printed
    assert not (tmp_path / "nsd").exists()
    assert not proxy.gets
    assert main(words) == 2
    assert "--accept-terms" in capsys.readouterr().err
    assert not (tmp_path / "nsd").exists()


def test_command_fetches_all_and_then_nothing(
    nsd_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], assert_right: Any
) -> None:
    _, proxy, held = nsd_server
    words = ["download", "nsd", str(tmp_path), "--subjects", "1", "3", "--sessions", "2"]
    words += ["--accept-terms", "--endpoint-url", proxy.url]
    assert main(words) == 0
    assert_right(tmp_path, held, (1, 3))
    proxy.gets.clear()
    assert main(words) == 0
    assert not proxy.gets
    assert "0 files fetched" in capsys.readouterr().out


def test_finished_file_that_was_altered_or_renewed_is_fetched_again(
    nsd_server: Any, tmp_path: Path, get_nsd: Any, assert_right: Any, content_of: Any
) -> None:
    client, proxy, held = nsd_server
    get_nsd(proxy, tmp_path)
    altered, renewed = BETAS.format(1, 1), BETAS.format(1, 2)
    (tmp_path / altered).write_bytes(b"x" * len(held[altered]))
    held[renewed] = content_of("renewed", 2_000)
    client.put_object(Bucket=BUCKET, Key=renewed, Body=held[renewed], ACL="public-read")
    assert set(get_nsd(proxy, tmp_path).fetched) == {altered, renewed}
    assert_right(tmp_path, held)


def test_foreign_file_is_not_overwritten_unless_asked(
    nsd_server: Any, tmp_path: Path, get_nsd: Any, assert_right: Any
) -> None:
    _, proxy, held = nsd_server
    foreign, same = tmp_path / BETAS.format(1, 1), tmp_path / BETAS.format(1, 2)
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    same.write_bytes(held[BETAS.format(1, 2)])
    with pytest.raises(SynBrainError, match="--overwrite"):
        get_nsd(proxy, tmp_path)
    assert foreign.read_bytes() == b"mine"
    assert BETAS.format(1, 2) in get_nsd(proxy, tmp_path, overwrite=True).present
    assert_right(tmp_path, held)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": [9]}, "no subjects"),
        ({"sessions": "41"}, "40 sessions"),
        ({"sessions": "some"}, "number"),
        ({"betas": "betas_fithrf"}, "nothing like"),
        ({"accept_terms": False}, "terms"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "cannot be listed"),
    ],
)
def test_bad_options_say_the_mend(
    nsd_server: Any, get_nsd: Any, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    _, proxy, _ = nsd_server
    with pytest.raises(SynBrainError, match=message):
        get_nsd(proxy, tmp_path, sessions=options.pop("sessions", "all"), **options)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SynBrainError, match=r"synbrain\[download\]"):
        open_bucket(BUCKET)


def test_two_downloads_into_one_folder_are_kept_apart(nsd_server: Any, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    _, proxy, _ = nsd_server
    source = open_bucket(BUCKET, proxy.url)
    plan = plan_nsd(source, [1], options=DownloadOptions(sessions="1"))
    with (tmp_path / ".download.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(SynBrainError, match="another download"):
            fetch_plan(source, plan, tmp_path)
