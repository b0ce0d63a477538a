"""CPU seconds of one step of tuning an EfficientNet (32 pictures), networks and variants interleaved.

    OMP_NUM_THREADS=1 python benchmarks/tuning_step.py [--rounds 4] [--size 112]
        [--encoders efficientnet-lite0 efficientnet-lite2]
        [--variants "folded, bf16, all trained"] [--units 60 15724] [--subjects 1 8]

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

from synbrain.features.encoders import Encoder, get_encoder
from synbrain.features.tuned import FeatureMap, finest_side
from synbrain.networks.precision import Precision, autocast, autocast_dtype
from synbrain.tuning.network import TuningNetwork
from synbrain.tuning.options import LAYERS

FROZEN = ("_conv_stem.", "_bn0.", "_blocks.0.", "_blocks.1.", "_blocks.2.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--size", type=int, default=112, help="of the pictures, pixels")
    parser.add_argument("--encoders", nargs="+", default=["efficientnet-lite0"])
    parser.add_argument("--units", nargs="+", type=int, default=[60], help="of a subject")
    parser.add_argument("--subjects", nargs="+", type=int, default=[1], help="whose images are in the batch")
    parser.add_argument("--variants", nargs="+", help="as they are printed; by default all")
    typed = parser.parse_args()
    torch.set_num_threads(1)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    steps = {}
    for encoder, form, precision, frozen, units, subjects in itertools.product(
        typed.encoders, ("plain", "folded"), precisions, ((), FROZEN), typed.units, typed.subjects
    ):
        name = f"{form}, {precision}, {'frozen' if frozen else 'all trained'}"
        if typed.variants is None or name in typed.variants:
            base = get_encoder(encoder, size=typed.size)
            of = f"{encoder}, {name}, {subjects} x {units} units"
            steps[of] = made(base, form, precision, frozen, [units] * subjects)
    least = dict.fromkeys(steps, float("inf"))
    for turn in range(typed.rounds + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn:  # the first one warms up
                least[name] = min(least[name], time.process_time() - started)
    for name, seconds in least.items():
        print(f"{name:62} {seconds:.2f}")


def made(
    base: Encoder, form: str, precision: Precision, frozen: tuple[str, ...], units: list[int]
) -> Callable[[], None]:
    """One step, to be called again and again."""
    assert base.module is not None
    for name, parameter in base.module.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    if form == "plain":
        base = replace(base, in_training=None)
    shapes = {layer: base.layers[layer] for layer in LAYERS[base.name]}
    head = FeatureMap(shapes, finest_side(shapes), 192)
    network = TuningNetwork(base, head, units, "squared", 0).train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)
    size = base.preprocess.size
    pixels = torch.randint(0, 256, (32, 3, size, size), dtype=torch.uint8)
    targets, cpu = torch.randn(32, max(units)), torch.device("cpu")
    who = torch.arange(32) * len(units) // 32

    def step() -> None:
        with autocast(cpu, autocast_dtype(precision, cpu)):
            loss = network(pixels, targets, torch.ones_like(targets), who)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
