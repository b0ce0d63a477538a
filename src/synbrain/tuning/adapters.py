"""Low-rank updates (LoRA, Hu et al. 2022) of large networks through peft."""

from __future__ import annotations

from typing import Any

from torch import nn

from synbrain.errors import SynBrainError


def use_lora(network: nn.Module, rank: int) -> None:
    """Put low-rank updates of ``rank`` beside every linear layer of ``network``, in place; only they train.

    Raises:
        SynBrainError: without peft, or where there is no linear layer within.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise SynBrainError(
            "peft is not installed", "pip install 'synbrain[lora]', or leave --lora-rank out"
        ) from error
    linear = sorted(name for name, module in network.named_modules() if isinstance(module, nn.Linear))
    if not linear:
        raise SynBrainError(
            "the network has no linear layers for low-rank updates", "leave --lora-rank out: tune all weights"
        )
    network.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear)
    inject_adapter_in_model(config, network)  # leaves the updates trainable, and what they update frozen


def merge_lora(network: nn.Module) -> None:
    """Add the updates to the weights that they stand beside, in place, and take them out of the network."""
    from peft.tuners.lora import LoraLayer

    layers: list[tuple[str, Any]] = [
        (name, module) for name, module in network.named_modules() if isinstance(module, LoraLayer)
    ]
    for name, layer in layers:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.get_base_layer())
