"""Published checkpoints: sizes from tensors, the same function, no pickled code, half precision, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fixtures.mindeye2 import checkpoint_state
from synbrain import Decoder
from synbrain.cli import main
from synbrain.decoding.mindeye2.backbone import BackboneConfig
from synbrain.decoding.mindeye2.model import MindEye2Network
from synbrain.decoding.published import (
    import_mindeye2,
    published_decoder,
    published_network,
    published_sizes,
)
from synbrain.decoding.streamed import StreamedLinear, write_tensors
from synbrain.errors import SynBrainError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    content = {
        "epoch": 149,
        "model_state_dict": {f"module.{name}": value for name, value in checkpoint_state().items()},
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(5)}}},
        "train_losses": [1.0, np.float64(0.5)],
    }
    torch.save(content, tmp_path / "last.pth")
    return tmp_path / "last.pth"


def test_import_is_the_published_function(checkpoint: Path, tmp_path: Path) -> None:
    decoder = import_mindeye2(checkpoint, out=tmp_path / "d", subjects=["subj02", "subj05"])
    network = published_network(checkpoint_state())
    assert decoder.space.pictures == "shifted"
    assert decoder.config.training["epoch"] == 149
    for i, (name, n) in enumerate((("subj02", 10), ("subj05", 7))):
        responses = np.random.default_rng(i).standard_normal((6, n)).astype(np.float32)
        with torch.inference_mode():
            tokens, projected = network.backbone(network.ridge(torch.from_numpy(responses), i))
        for ours, original in (
            (decoder.for_subject(name).backbone(responses), tokens.numpy()),
            (decoder.for_subject(name).embed(responses), projected.numpy()),
        ):
            assert np.abs(ours - original).max() < 5e-3 * np.abs(original).max()  # float16 weights
    stored = load_file(tmp_path / "d" / "model.safetensors")
    assert {t.dtype for t in stored.values() if t.ndim > 1} == {torch.float16}
    assert not [name for name in stored if "mixer" in name or "freqs" in name or "noise_scheduler" in name]
    assert decoder.predict_tokens(np.zeros((2, 10), np.float32)).shape == (1, 2, 3, 8)


def test_parity_through_the_loader(parity, same) -> None:
    state = {name.removeprefix("state."): t for name, t in parity("decoder").tensors.items()
             if name.startswith("state.")}  # fmt: skip
    prior = parity("prior").state()
    state |= {f"diffusion_prior.{name}": value for name, value in prior.items()}
    sizes = published_sizes(state)
    decoder, fixture = published_decoder(state), parity("decoder")
    for i, name in enumerate(decoder.subjects):
        voxels = fixture[f"subject{i}.voxels"][:, 0].numpy()
        assert voxels.shape[1] == sizes.n_voxels[i]
        same(torch.from_numpy(decoder.backbone(voxels, name)), fixture[f"subject{i}.backbone"])
        same(torch.from_numpy(decoder.embed(voxels, name)), fixture[f"subject{i}.clip_voxels"])


@pytest.mark.parametrize("kind", ["missing", "extra", "misshapen"])
def test_odd_tensors_are_named(kind: str) -> None:
    state = checkpoint_state()
    name = "diffusion_prior.net.causal_transformer.layers.1.1.5.weight"
    if kind == "missing":
        del state[name]
    elif kind == "extra":
        name = "backbone.surplus.weight"
        state[name] = torch.zeros(2)
    else:
        state[name] = torch.zeros(3, 3)
    with pytest.raises(SynBrainError, match=f"{kind}: {name}"):
        published_decoder(state)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model_state_dict": {"a": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(SynBrainError, match="was not loaded"):
        import_mindeye2(tmp_path / "evil.pth", out=tmp_path / "d")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "d").exists()


def test_a_deepspeed_folder(checkpoint: Path, tmp_path: Path) -> None:
    step = tmp_path / "last" / "global_step9"
    step.mkdir(parents=True)
    (tmp_path / "last" / "latest").write_text("global_step9\n")
    with pytest.raises(SynBrainError, match="holds 0 files"):
        import_mindeye2(tmp_path / "last", out=tmp_path / "e")
    weights = checkpoint_state()
    torch.save({"module": weights, "dp_world_size": 1}, step / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {}}, step / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    ours = import_mindeye2(tmp_path / "last", out=tmp_path / "d")
    plain = import_mindeye2(checkpoint, out=tmp_path / "p")
    responses = np.random.default_rng(0).standard_normal((3, ours.n_voxels)).astype(np.float32)
    np.testing.assert_array_equal(ours.embed(responses), plain.embed(responses))


def test_the_checkpoint_may_be_given_by_name(checkpoint: Path, tmp_path: Path) -> None:
    named = ["--subjects", "a", "b", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "d")]
    assert main(["import-mindeye2", *named]) == 0
    assert list(Decoder.from_pretrained(tmp_path / "d").subjects) == ["a", "b"]


def test_wrong_names_and_conventions(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SynBrainError, match="2 ridge layers"):
        import_mindeye2(checkpoint, out=tmp_path / "d", subjects=["subj01"])
    with pytest.raises(SynBrainError, match="missing"):
        import_mindeye2(tmp_path / "none.pth", out=tmp_path / "d")
    decoder = import_mindeye2(checkpoint, out=tmp_path / "d")
    plain = decoder.space.model_copy(update={"pictures": "plain"})
    with pytest.raises(SynBrainError, match="pictures 'plain' instead of 'shifted'"):
        decoder.space.require(plain)
    assert Decoder.from_pretrained(tmp_path / "d", subject="subject2").n_voxels == 7


def test_half_weights_compute_in_float32() -> None:
    torch.manual_seed(0)
    layer = StreamedLinear(40, 50).half()
    x = torch.randn(3, 40)
    expected = torch.nn.functional.linear(x, layer.weight.float(), layer.bias.float())
    torch.testing.assert_close(layer(x), expected)


def test_written_tensors_are_safetensors(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(5, 3), "b": torch.randn(4), "c": torch.tensor(2)}
    write_tensors(tmp_path / "plain", tensors)
    again = load_file(tmp_path / "plain")
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
    with pytest.raises(SynBrainError, match="float16"):
        write_tensors(tmp_path / "half", {"a": torch.full((2, 2), 1e6)}, half=True)


MEASURE = """
import sys, threading, time
import numpy as np
from pathlib import Path
from synbrain.decoding import streamed
from synbrain.decoding.published import import_mindeye2
streamed.BLOCK_VALUES = 2**20  # as small beside these weights as the default is beside the published ones
def used():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return np.array([int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS")])
seen, done = [], threading.Event()
def watch():
    while not done.is_set():
        seen.append(used())
        time.sleep(0.002)
np.ones((4, 4)) @ np.ones((4, 4))
before = used()
watcher = threading.Thread(target=watch)
watcher.start()
decoder = import_mindeye2(Path(sys.argv[1]), out=Path(sys.argv[2]))
decoder.embed(np.zeros((1, decoder.n_voxels), np.float32))
done.set()
watcher.join()
print(*(np.max(seen, axis=0) - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_import_and_running(tmp_path: Path) -> None:
    """Weights are mapped from their files: what is allocated beside them stays below .3 of their size.

    Pages of the files that were read count as memory of the process too, and are given back.
    """
    sizes = BackboneConfig(hidden=1024, n_blocks=0, tokens=64, dim=512, blocks="linear")
    state = dict(MindEye2Network([2000], sizes, None).state_dict())
    for name, shape in (("1.0", 1024), ("2.0", 1)):
        block = f"backbone.mixer_blocks{name}."
        state |= {f"{block}0.{part}": torch.zeros(shape) for part in ("weight", "bias")}
        for k in (0, 3):
            state |= {
                f"{block}1.{k}.weight": torch.zeros(shape, shape),
                f"{block}1.{k}.bias": torch.zeros(shape),
            }
    torch.save({"model_state_dict": state}, tmp_path / "last.pth")
    arguments = [sys.executable, "-c", MEASURE, str(tmp_path / "last.pth"), str(tmp_path / "d")]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    allocated, everything = map(int, output.split())
    weights = (tmp_path / "d" / "model.safetensors").stat().st_size
    assert weights > 60e6
    assert allocated < 0.3 * weights, (allocated, weights)
    # 2.3 times if pages of the checkpoint were kept; here blocks and modules are a tenth of the weights
    assert everything < 1.5 * weights, (everything, weights)
