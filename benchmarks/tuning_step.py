"""CPU seconds of one step of tuning EfficientNet-Lite0 (32 pictures of 112 pixels), variants interleaved.

    OMP_NUM_THREADS=1 python benchmarks/tuning_step.py [--rounds 4]

"plain" runs the network with its batch norms, "folded" has them in the convolutions and depthwise ones in
float32 (`features/efficientnet_training.py`). Frozen: the stem and the first three blocks.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from synbrain.features.encoders import get_encoder
from synbrain.features.tuned import FeatureMap
from synbrain.networks.precision import Precision, autocast, autocast_dtype
from synbrain.tuning.network import TuningNetwork

LAYERS = ("block7", "block10", "block14")
FROZEN = ("_conv_stem.", "_bn0.", "_blocks.0.", "_blocks.1.", "_blocks.2.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    typed = parser.parse_args()
    torch.set_num_threads(1)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    steps = {
        f"{form}, {precision}, {'frozen' if frozen else 'all trained'}": made(form, precision, frozen)
        for form, precision, frozen in itertools.product(("plain", "folded"), precisions, ((), FROZEN))
    }
    least = dict.fromkeys(steps, float("inf"))
    for turn in range(typed.rounds + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn:  # the first one warms up
                least[name] = min(least[name], time.process_time() - started)
    for name, seconds in least.items():
        print(f"{name:30} {seconds:.2f}")


def made(form: str, precision: Precision, frozen: tuple[str, ...]) -> Callable[[], None]:
    """One step, to be called again and again."""
    base = get_encoder("efficientnet-lite0", size=112)
    assert base.module is not None
    for name, parameter in base.module.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    if form == "plain":
        base = replace(base, in_training=None)
    head = FeatureMap({layer: base.layers[layer] for layer in LAYERS}, 7, 192)
    network = TuningNetwork(base, head, [60], "squared", 0).train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)
    pixels = torch.randint(0, 256, (32, 3, 112, 112), dtype=torch.uint8)
    targets, cpu = torch.randn(32, 60), torch.device("cpu")

    def step() -> None:
        with autocast(cpu, autocast_dtype(precision, cpu)):
            loss = network(pixels, targets, torch.ones(60), torch.tensor(0))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
