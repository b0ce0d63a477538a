"""Vision transformers through transformers: CLIP, DINOv2, MAE and SigLIP, patch tokens of any block.

Each of them is one :class:`Tower`: how its weights are opened, where its patches lie among its tokens, and
which picture it expects. What follows is the same for all, so that a further one is one entry in ``TOWERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder, encoder_digest, frozen, own_size_only, weights_digest
from synbrain.features.preprocessing import Preprocessing, clip_preprocessing, squashed

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Tower:
    """What tells one family of vision transformers from another.

    Attributes:
        title: what it is called in messages.
        example: a hub id of such a model.
        classes: ``model_type`` in config.json -> the class in transformers that opens it; the first
            is tried where the type is another one (a CLIP model holds a vision tower, for example).
        architecture: fields of its config that change its tokens and are not in the weights; digested.
        tokens: which tokens there are, in words; digested.
        preprocessing: its config -> what is done to a picture.
        prefix: its config -> how many tokens stand before the patches.
        final: (model, output) -> (n, prefix + patches, dim) after the final norm.
        extra: (model, batch) -> further arguments of a forward pass.
        opened_with: fields of its config that are set when it is opened.
    """

    title: str
    example: str
    classes: dict[str, str]
    architecture: tuple[str, ...]
    tokens: str
    preprocessing: Callable[[Any], Preprocessing]
    prefix: Callable[[Any], int]
    final: Callable[[Any, Any], torch.Tensor]
    extra: Callable[[Any, torch.Tensor], dict[str, Any]] = lambda model, batch: {}
    opened_with: dict[str, Any] = field(default_factory=dict)


def _clip_final(model: Any, output: Any) -> torch.Tensor:
    """CLIP's norm is applied to its class token alone; SynBrain (open_clip) applies it to every patch."""
    inner = getattr(model, "vision_model", model)  # transformers before 5 wraps the tower
    normed: torch.Tensor = inner.post_layernorm(output.last_hidden_state)
    return normed


def _normed(model: Any, output: Any) -> torch.Tensor:
    hidden: torch.Tensor = output.last_hidden_state  # these models norm every token themselves
    return hidden


def _every_patch_in_order(model: Any, batch: torch.Tensor) -> dict[str, Any]:
    """MAE shuffles patches by noise before it drops some of them; rising noise keeps their order."""
    n = (model.config.image_size // model.config.patch_size) ** 2
    return {"noise": torch.arange(n, dtype=torch.float32, device=batch.device).expand(len(batch), n)}


TOWERS: dict[str, Tower] = {
    "clip": Tower(
        title="CLIP",
        example="laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        classes={"clip_vision_model": "CLIPVisionModel"},
        architecture=("hidden_act", "num_attention_heads", "patch_size", "layer_norm_eps"),
        tokens="patches, row-major, class token dropped; final after the final layer norm",
        preprocessing=lambda config: clip_preprocessing(config.image_size),
        prefix=lambda config: 1,
        final=_clip_final,
    ),
    "dinov2": Tower(
        title="DINOv2",
        example="facebook/dinov2-large",
        classes={"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"},
        architecture=("hidden_act", "num_attention_heads", "patch_size", "layer_norm_eps", "use_swiglu_ffn"),
        tokens="patches, row-major, class and register tokens dropped; final after the final layer norm",
        # its weights know 518 pixels and interpolate their positions; 224 is what its own processor gives
        preprocessing=lambda config: squashed(min(config.image_size, 224), IMAGENET_MEAN, IMAGENET_STD),
        prefix=lambda config: 1 + int(getattr(config, "num_register_tokens", 0)),
        final=_normed,
    ),
    "mae": Tower(
        title="MAE",
        example="facebook/vit-mae-large",
        classes={"vit_mae": "ViTMAEModel"},
        architecture=("hidden_act", "num_attention_heads", "patch_size", "layer_norm_eps"),
        tokens="patches, row-major, none masked, class token dropped; final after the final layer norm",
        preprocessing=lambda config: squashed(config.image_size, IMAGENET_MEAN, IMAGENET_STD),
        prefix=lambda config: 1,
        final=_normed,
        extra=_every_patch_in_order,
        opened_with={"mask_ratio": 0.0},
    ),
    "siglip": Tower(
        title="SigLIP",
        example="google/siglip-so400m-patch14-384",
        classes={"siglip_vision_model": "SiglipVisionModel"},
        architecture=("hidden_act", "num_attention_heads", "patch_size", "layer_norm_eps"),
        tokens="patches, row-major; final after the final layer norm",
        preprocessing=lambda config: squashed(config.image_size, HALF, HALF),
        prefix=lambda config: 0,
        final=_normed,
    ),
}


def transformer(
    name: str,
    weights: str | None,
    device: torch.device,
    precision: str = "float32",
    size: int | None = None,
) -> Encoder:
    """Layers ``layer1`` .. ``layerN`` (residual stream after that block) and ``final``.

    ``final`` is every patch token after the final layer norm, without the class token and without
    projection: (256, 1664) for CLIP ViT-bigG/14. Source: SynBrain takes open_clip's ``visual`` with
    ``output_tokens``, which normalises all tokens and then drops the class token.

    Args:
        name: a key of ``TOWERS``, the registry's name for it.
        weights: a local folder, or a hub id, of such a model; it must be given.
        device: where it runs.
        precision: see :class:`Encoder`.
        size: of the pictures, pixels; only the model's own.

    Raises:
        SynBrainError: where transformers or the weights are missing, or they are of another network.
    """
    tower = TOWERS[name]
    if weights is None:
        raise SynBrainError(
            f"the {name} encoder needs weights", f"pass --weights FOLDER, or a hub id such as {tower.example}"
        )
    model, hub_id = _load(name, tower, weights)
    config, preprocess = model.config, tower.preprocessing(model.config)
    own_size_only(name, size, preprocess.size)
    n_tokens, dim = (preprocess.size // config.patch_size) ** 2, config.hidden_size
    hidden = {f"layer{i}": (n_tokens, dim) for i in range(1, config.num_hidden_layers + 1)}
    layers = hidden | {"final": (n_tokens, dim)}
    describe = {
        "preprocessing": preprocess.describe(),
        "architecture": {key: getattr(config, key) for key in tower.architecture},
        "layers": {layer: list(shape) for layer, shape in layers.items()},
        "tokens": tower.tokens,
    }
    digest = encoder_digest(name, weights_digest(model.state_dict()), describe)
    model = frozen(model, device)
    return Encoder(
        name=name,
        digest=digest,
        layers=layers,
        default_layer="final",
        preprocess=preprocess,
        describe=describe,
        network=partial(_tokens, model, tower),
        device=device,
        precision=precision,
        hub_id=hub_id,
        module=model,
    )


def _tokens(
    model: Any, tower: Tower, batch: torch.Tensor, wanted: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """The layers ``wanted`` of a preprocessed batch, each (n, patches, dim)."""
    inside = [layer for layer in wanted if layer != "final"]
    output = model(pixel_values=batch, output_hidden_states=bool(inside), **tower.extra(model, batch))
    first = tower.prefix(model.config)
    tokens = {layer: output.hidden_states[int(layer[5:])][:, first:] for layer in inside}
    if "final" in wanted:
        tokens["final"] = tower.final(model, output)[:, first:]
    return tokens


def _load(name: str, tower: Tower, weights: str) -> tuple[Any, str | None]:
    try:
        import transformers
    except ImportError as error:
        raise SynBrainError(
            f"the {name} encoder needs transformers", "install it with `pip install 'synbrain[clip]'`"
        ) from error
    local = Path(weights).is_dir()
    try:
        kind = transformers.AutoConfig.from_pretrained(weights, local_files_only=local).model_type
        opener = tower.classes.get(kind, next(iter(tower.classes.values())))
        loaded: Any = getattr(transformers, opener).from_pretrained(
            weights,
            local_files_only=local,
            dtype=torch.float32,
            output_loading_info=True,
            **tower.opened_with,
        )
    except SafetensorError as error:
        raise SynBrainError(
            f"the weights in {weights} are cut short or damaged ({error})",
            "fetch them again: a download was interrupted"
            if local
            else f"fetch them again: `hf download {weights} --force-download`",
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        mend = (
            f"give a folder with config.json and model.safetensors of a {tower.title} model"
            if local
            else "check the spelling and the connection; offline (HF_HUB_OFFLINE=1), fetch it first "
            f"with `hf download {weights}`, or pass the path of a local folder"
        )
        raise SynBrainError(
            f"no {tower.title} model could be loaded from {weights} ({first})", mend
        ) from error
    model, loading = loaded
    missing = [key for key in loading["missing_keys"] if not key.endswith("position_ids")]
    if missing:
        raise SynBrainError(
            f"{weights} lacks {len(missing)} weights of a {tower.title} vision model, {sorted(missing)[0]} "
            "among them",
            f"give the weights of a {tower.title} model (other kinds of encoder have their own names)",
        )
    return model, None if local else weights
