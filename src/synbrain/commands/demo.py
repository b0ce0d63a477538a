"""``synbrain demo``: from nothing to a report, through the same commands that real data go through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from synbrain.evaluation.options import N_SAMPLES

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset

N_STEPS = 7
SUBJECT = 1
N_NEW_IMAGES, IMAGE_SIDE = 4, 224


def demo(
    *,
    out: Path = Path("demo-out"),
    seed: int = 0,
    size: Literal["tiny", "demo", "small"] = "demo",
    samples: int = N_SAMPLES,
    overwrite: bool = False,
) -> None:
    """Simulate a subject, prepare, encode, train, synthesize, evaluate, and write a report.

    Args:
        out: folder for everything: report.html, scores.json, figures/, and the data behind them.
        seed: of the simulated brain, the training and the synthetic trials; one seed, one result.
        size: size of the simulated experiment: tiny, demo or small.
        samples: synthetic trials per test image that are scored.
        overwrite: replace what an earlier demo left.
    """
    from synbrain.commands import telling
    from synbrain.decoding.options import DecoderOptions
    from synbrain.decoding.pictures.reconstruct import reconstruct
    from synbrain.decoding.train import train_decoder
    from synbrain.files import require_absent
    from synbrain.model.options import SynthesizeOptions
    from synbrain.model.synthesis import synthesize
    from synbrain.training.options import TrainOptions
    from synbrain.training.train import train
    from synbrain.viewer.options import ReportOptions
    from synbrain.viewer.report import report

    require_absent(out, overwrite)
    run, started = out / "run", time.monotonic()
    made = _simulated(out, size, seed, overwrite)
    with _step(4, "train"):
        model = train([made], TrainOptions(seed=seed), out=run, overwrite=overwrite, show_progress=True)
        telling.trained(model, {"out": run})
    with _step(5, "synthesize trials of images that no one saw"):
        pictures = _draw_new_images(out / "new-images", seed)
        drawn = SynthesizeOptions(samples=8, seed=seed)
        trials = synthesize(
            model, [pictures], drawn, out=out / "synthetic.npy", overwrite=overwrite, show_progress=True
        )
        telling.responses(trials, {})
    with _step(6, "decode pictures from measured and synthetic responses"):
        reader = DecoderOptions(method="ridge", seed=seed)
        decoder = train_decoder([made], reader, out=out / "decoder", overwrite=overwrite, show_progress=True)
        decoded = reconstruct(decoder, made, run=model, seed=seed, out=out / "decoded", overwrite=overwrite)
        telling.reconstructed(decoded, {"out": out / "decoded"})
    with _step(7, "evaluate and report"):
        options = ReportOptions(samples=samples, seed=seed, mni=True, title="SynBrain on a simulated brain")
        written = report(
            run, made, options, out=out, decoder=out / "decoder", overwrite=overwrite, show_progress=True
        )
        telling.reported(written, {})
    print(f"done in {time.monotonic() - started:.0f} s: open {out / 'report.html'}")


def _simulated(out: Path, size: Literal["tiny", "demo", "small"], seed: int, overwrite: bool) -> Dataset:
    """The dataset of a simulated subject, with tokens."""
    from synbrain.commands import telling
    from synbrain.features.store import make_tokens
    from synbrain.prepare.nsd.prepare import prepare_nsd
    from synbrain.simulate.experiment import simulate

    tree = out / "simulated-nsd"
    with _step(1, "simulate a subject who looks at drawn scenes"):
        simulate(tree, size=size, seed=seed, overwrite=overwrite, show_progress=True)
    with _step(2, "prepare: NSD layout to a dataset"):
        made = prepare_nsd(tree, out / "dataset", subject=SUBJECT, overwrite=overwrite, show_progress=True)
        telling.prepared(made, {})
    with _step(3, "features: images to tokens"):
        telling.encoded(make_tokens(made, overwrite=overwrite, show_progress=True), {})
    return made


def _draw_new_images(folder: Path, seed: int) -> Path:
    """Scenes that are not in the experiment, as PNG files."""
    from PIL import Image

    from synbrain.simulate.scenes import draw_image, draw_scenes

    folder.mkdir(parents=True, exist_ok=True)
    other = seed + 1_000_003  # another seed than the experiment's
    scenes = draw_scenes(N_NEW_IMAGES, other)
    for i in range(N_NEW_IMAGES):
        Image.fromarray(draw_image(scenes, i, IMAGE_SIDE, other)).save(folder / f"scene-{i}.png")
    return folder


@contextmanager
def _step(number: int, what: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"\n[{number}/{N_STEPS}] {what}", flush=True)
    yield
    print(f"[{number}/{N_STEPS}] took {time.monotonic() - started:.1f} s", flush=True)
