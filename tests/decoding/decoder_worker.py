"""Trains a decoder of two subjects and adapts it to a third, as one of several processes."""

from __future__ import annotations

import sys
from pathlib import Path

from synbrain.data.dataset import load_dataset
from synbrain.decoding.adapt import adapt_decoder
from synbrain.decoding.options import DecoderAdaptOptions, DecoderOptions, MindEye2Options, MindEye2Sizes
from synbrain.decoding.train import train_decoder

NETWORK = MindEye2Options(
    sizes=MindEye2Sizes(hidden=16, blocks=1, use_prior=False), steps=8, round_steps=4, batch_size=16
)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    first, second, third = (load_dataset(folder / name / "dataset") for name in "abc")
    how = {"method": "mindeye2", "encoder": "pixels", "grid": 0, "components": 0, "device": "cpu"}
    how |= {"mindeye2": NETWORK.model_dump()}
    train_decoder([first, second], DecoderOptions.model_validate(how), out=folder / "base")
    adapt_decoder(folder / "base", third, DecoderAdaptOptions.model_validate(how), out=folder / "adapted")
