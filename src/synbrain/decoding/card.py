"""The README of a decoder folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synbrain.describe import counted
from synbrain.markdown import markdown_table

if TYPE_CHECKING:
    from synbrain.decoding.decoder import Decoder


def decoder_card(decoder: Decoder) -> str:
    """What the decoder reads, what it gives, and on what it was fitted, as Markdown."""
    config, space = decoder.config, decoder.space
    source = decoder.targets.source
    subjects = [[s.name, str(s.n_voxels), s.unit] for s in decoder.subjects.values()]
    lines = [
        f"# A decoder from brain responses to image tokens ({config.kind})",
        "",
        "```python",
        "from synbrain import Decoder",
        "",
        'decoder = Decoder.from_pretrained("this folder")',
        "tokens = decoder.predict_tokens(responses)  # (1, n, tokens, dim)",
        "```",
        "",
        *markdown_table(["subject", "voxels", "unit"], subjects, numbers=False),
        "",
        f"Output: {space.n_tokens} x {space.dim} tokens of `{space.encoder}`, layer `{space.layer}`"
        + (f" (reduced from {source.n_tokens} x {source.dim})" if space.reduction else "")
        + f"; pictures: {space.pictures}.",
    ]
    if space.pictures == "shifted":
        lines.append("Image tokens must be made of washed-out pictures (.5 + .5 x), as MindEye2 does.")
    if config.synthetic is not None:
        lines += ["", "**Trained on synthetic trials besides measured ones:**", *_pairs(config.synthetic)]
    if config.training:
        lines += ["", "## Training", *_pairs(config.training)]
    if config.validation:
        lines += ["", "## On validation images (training images that no weight was fitted on)"]
        if config.last_fit:
            lines[-1:] = ["## On validation images, of a first fit", "", _last_fit(config.last_fit), ""]
        lines += _pairs(config.validation)
    return "\n".join(lines) + "\n"


def _last_fit(about: dict[str, int]) -> str:
    """What was fitted in the end, and what the scores on validation images are of."""
    steps = f", for the {counted(about['steps'], 'step')} that they chose" if "steps" in about else ""
    images = counted(about["images"], "image")
    return (
        f"**The weights in this folder were fitted to all {images}**, these too{steps}. The figures are of a "
        "fit before that, without them."
    )


def _pairs(values: dict[str, object]) -> list[str]:
    return [f"- {name}: {value:.4g}" if isinstance(value, float) else f"- {name}: {value}"
            for name, value in values.items()]  # fmt: skip
