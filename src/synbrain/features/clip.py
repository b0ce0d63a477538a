"""CLIP's vision transformer through transformers: patch tokens after the final layer norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder, encoder_digest, frozen, weights_digest
from synbrain.features.preprocessing import clip_preprocessing

EXAMPLE = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"


def clip(name: str, weights: str | None, device: torch.device, precision: str = "float32") -> Encoder:
    """Layers ``layer1`` .. ``layerN`` (residual stream after that block) and ``final``.

    ``final`` is every patch token after the final layer norm, without the class token and without
    projection: (256, 1664) for ViT-bigG/14. Source: SynBrain takes open_clip's ``visual`` with
    ``output_tokens``, which normalises all tokens and then drops the class token.

    Args:
        name: the registry's name for it.
        weights: a local folder, or a hub id, of a CLIP or CLIP vision model; it must be given.
        device: where it runs.
        precision: see :class:`Encoder`.

    Raises:
        SynBrainError: where transformers or the weights are missing, or they do not fit CLIP.
    """
    if weights is None:
        raise SynBrainError(
            "the clip encoder needs weights", f"pass --weights FOLDER, or a hub id such as {EXAMPLE}"
        )
    model, hub_id = _load(weights)
    inner = getattr(model, "vision_model", model)  # transformers before 5 wraps the tower
    config = model.config
    n_tokens, dim = (config.image_size // config.patch_size) ** 2, config.hidden_size
    hidden = {f"layer{i}": (n_tokens, dim) for i in range(1, config.num_hidden_layers + 1)}
    layers = hidden | {"final": (n_tokens, dim)}
    preprocess = clip_preprocessing(config.image_size)
    describe = {
        "preprocessing": preprocess.describe(),
        "architecture": {
            key: getattr(config, key)
            for key in ("hidden_act", "num_attention_heads", "patch_size", "layer_norm_eps")
        },
        "layers": {layer: list(shape) for layer, shape in layers.items()},
        "tokens": "patches, row-major, class token dropped; final after the final layer norm",
    }
    digest = encoder_digest(name, weights_digest(_portable(model.state_dict())), describe)
    model = frozen(model, device)

    def network(batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        inside = [layer for layer in wanted if layer != "final"]
        output = model(pixel_values=batch, output_hidden_states=bool(inside))
        found = {layer: output.hidden_states[int(layer[5:])][:, 1:] for layer in inside}
        if "final" in wanted:
            found["final"] = inner.post_layernorm(output.last_hidden_state)[:, 1:]
        return found

    return Encoder(
        name=name,
        digest=digest,
        layers=layers,
        default_layer="final",
        preprocess=preprocess,
        describe=describe,
        network=network,
        device=device,
        precision=precision,
        hub_id=hub_id,
    )


def _load(weights: str) -> tuple[Any, str | None]:
    try:
        from transformers import CLIPVisionModel
    except ImportError as error:
        raise SynBrainError(
            "the clip encoder needs transformers", "install it with `pip install 'synbrain[clip]'`"
        ) from error
    local = Path(weights).is_dir()
    try:
        loaded: Any = CLIPVisionModel.from_pretrained(
            weights, local_files_only=local, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        mend = (
            "give a folder with config.json and model.safetensors of a CLIP model"
            if local
            else "check the spelling and the connection; offline (HF_HUB_OFFLINE=1), fetch it first "
            f"with `hf download {weights}`, or pass the path of a local folder"
        )
        raise SynBrainError(f"no CLIP model could be loaded from {weights} ({first})", mend) from error
    model, loading = loaded
    missing = [key for key in loading["missing_keys"] if not key.endswith("position_ids")]
    if missing:
        raise SynBrainError(
            f"{weights} lacks {len(missing)} weights of a CLIP vision model, {sorted(missing)[0]} among them",
            "give the weights of a CLIP model (other kinds of encoder need their own entry)",
        )
    return model, None if local else weights


def _portable(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under names that do not depend on transformers' version."""
    return {
        key.removeprefix("vision_model."): value
        for key, value in state.items()
        if not key.endswith("position_ids")
    }
