"""How many steps the mapper saves when each image has one target, averaged over its trials.

    OMP_NUM_THREADS=1 python benchmarks/averaged_targets.py
    OMP_NUM_THREADS=1 python benchmarks/averaged_targets.py --run RUN --data DATASET --seeds 0 1

The objectives differ by a constant, mean_t |f - z_t|^2 = |f - mean_t z_t|^2 + mean_t |z_t - mean_t z_t|^2;
the noise of the gradient falls by the number of trials. What that saves depends on how noisy trials are.
Without options, several levels are run with a simulated teacher. With a trained run and its dataset, the
noise of the latents is measured, and new mappers are trained on them by the recipe ``reference``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from synbrain.data.dataset import load_dataset
from synbrain.features.store import open_tokens
from synbrain.features.tokens import pairs_of
from synbrain.files import read_json
from synbrain.model.synbrain import SynBrain
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.config import MapperStageConfig
from synbrain.networks.fit.average import ema_decay_at, update_ema
from synbrain.networks.fit.batches import StageSetup, SubjectData
from synbrain.networks.fit.mapper import train_mapper
from synbrain.networks.fit.metrics_log import LOG_NAME, MetricsLog, read_log
from synbrain.networks.losses import mapper_loss
from synbrain.networks.mapper import Mapper, MapperConfig
from synbrain.training.config import TrainConfig
from synbrain.training.recipes import recipe

N_IMAGES, N_HELD, TRIALS, BATCH, STEPS, EVERY, DECAY = 6000, 300, 3, 24, 3000, 25, 0.995
NOISES = (1.0, 2.0, 4.0)  # sd of a trial's latent around its image's, in sd of the images'
CONFIG = MapperConfig(tokens=4, dim=16, depth=2, heads=2)


def averaged_targets() -> None:
    """Train on single-trial and on averaged targets of a simulated teacher; print steps to equal loss."""
    torch.manual_seed(0)
    teacher = Mapper(CONFIG)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_(std=0.2)
        tokens = torch.randn(N_IMAGES + N_HELD, CONFIG.tokens, CONFIG.dim)
        truth = teacher(tokens)
        truth = (truth - truth.mean(0)) / truth.std()
    images = torch.arange(N_IMAGES)
    for noise in NOISES:
        trials = truth[:N_IMAGES, None] + noise * torch.randn(N_IMAGES, TRIALS, *truth.shape[1:])
        _show_objective(_student()(tokens[:BATCH]), trials[:BATCH])
        on_trials = _train(tokens, images.repeat_interleave(TRIALS), trials.flatten(0, 1), truth)
        on_means = _train(tokens, images, trials.mean(1), truth)
        _show(f"noise {noise}", on_trials, on_means)


def on_a_run(run: Path, data: Path, seeds: list[int], steps: int) -> None:
    """The same with the latents that a run's BrainVAE gives for the trials it was trained on.

    Images that the run held out judge, by their averaged posterior means. The mapper is new, of the run's
    sizes, and goes through :func:`train_mapper`, in the settings of recipe ``reference`` at small sizes.
    """
    model, dataset = SynBrain.from_pretrained(run), load_dataset(data)
    vae, mapper, stage = model.vae, model.mapper, model.config.mapper_layer
    assert vae is not None
    assert mapper is not None
    assert stage is not None
    trained = TrainConfig.model_validate(read_json(run / "training" / "config.json"))
    pairs = pairs_of(dataset, open_tokens(dataset, model.config.encoder, [stage]), "train")
    rest, held = pairs.hold_out(trained.validation_fraction, trained.seed)
    part = model.subject(dataset.info.subject)
    subject = SubjectData(part.name, rest, held, part.scale)
    mean, variance = _posteriors(vae, subject)
    _show_noise(mean, variance, subject)
    config = recipe("reference", preset="tiny").mapper.model_copy(
        update={"precision": "fp32", "steps": steps, "round_steps": EVERY}
    )
    for seed in seeds:
        curves = {}
        for kind, changes in (
            ("means", {"targets": "image"}),
            ("trials", {"targets": "trial"}),
            ("samples of trials", {"targets": "reencode", "target": "sample"}),
        ):
            torch.manual_seed(seed)
            told = config.model_copy(update=changes)
            curves[kind] = _through_stage(Mapper(mapper.config), vae, subject, told, stage, seed)
        for kind in ("trials", "samples of trials"):
            _show(f"{run.name}, seed {seed}, {kind}", curves[kind], curves["means"])


@torch.no_grad()
def _posteriors(vae: BrainVAE, subject: SubjectData) -> tuple[Tensor, Tensor]:
    """Posterior means and variances of the training trials, each (n_trials, tokens * dim) float32."""
    means, variances = [], []
    for rows in np.array_split(np.arange(subject.train.n_trials), -(-subject.train.n_trials // BATCH)):
        posterior = vae.encode(torch.from_numpy(subject.scale.scaled(subject.train.trial_responses(rows))))
        means.append(posterior.mean.flatten(1))
        variances.append(posterior.logvar.exp().flatten(1))
    return torch.cat(means), torch.cat(variances)


def _show_noise(mean: Tensor, variance: Tensor, subject: SubjectData) -> None:
    """Sd of trials around their image over sd of images, in the latents; sums of unbiased variances."""
    image, n = torch.from_numpy(subject.train.image_of_trial), int(subject.train.repeats()[0])
    assert (subject.train.repeats() == n).all()
    grouped = mean.double()[torch.argsort(image, stable=True)].view(-1, n, mean.shape[1])
    within = grouped.var(dim=1).mean(0)
    signal = grouped.mean(1).var(dim=0) - within / n
    drawn = within + variance.double().mean(0)
    by_dimension = (within / signal.clamp(min=1e-12)).sqrt()[signal > 0]
    print(
        f"{len(grouped)} images x {n} trials: noise / signal (sd) of posterior means "
        f"{(within.sum() / signal.sum()).sqrt():.2f} (median over dimensions {by_dimension.median():.2f}, "
        f"{(signal > 0).double().mean():.0%} of them with signal), of drawn latents "
        f"{(drawn.sum() / signal.sum()).sqrt():.2f}"
    )
    _show_objective(torch.zeros_like(grouped[:, 0]), grouped)


def _through_stage(
    mapper: Mapper, vae: BrainVAE, subject: SubjectData, config: MapperStageConfig, stage: str, seed: int
) -> list[float]:
    """Validation losses of the package's own mapper stage, every ``EVERY`` steps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = MetricsLog(folder)
        setup = StageSetup([subject], stage, [1.0], Accelerator(cpu=True), folder, log, seed)
        train_mapper(mapper, vae, config, setup)
        log.close()
        return [row["score"] for row in read_log(folder / LOG_NAME) if row["split"] == "validation"]


def _show(name: str, on_trials: list[float], on_means: list[float]) -> None:
    """Steps of both to the best loss that both reach."""
    best = max(min(on_trials), min(on_means))
    trials, means = (_steps_to(best, curve) for curve in (on_trials, on_means))
    print(
        f"averaged: {name}: validation loss {best:.4f} after {trials} steps on trials, {means} on means: "
        f"{trials / means:.2f}x; best on trials {min(on_trials):.4f} after "
        f"{_steps_to(min(on_trials), on_trials)}, on means {min(on_means):.4f} after "
        f"{_steps_to(min(on_means), on_means)}"
    )


def _steps_to(loss: float, curve: list[float]) -> int:
    return EVERY * (1 + next(i for i, value in enumerate(curve) if value <= loss))


def _show_objective(predicted: Tensor, trials: Tensor) -> None:
    single = torch.stack([mapper_loss(predicted, trials[:, t]) for t in range(trials.shape[1])]).mean()
    mean = mapper_loss(predicted, trials.mean(1))
    spread = (trials - trials.mean(1, keepdim=True)).square().mean()
    print(f"averaged: loss on trials {single:.5f} = loss on means {mean:.5f} + spread {spread:.5f}")


def _student() -> Mapper:
    torch.manual_seed(1)
    return Mapper(CONFIG)


def _train(tokens: Tensor, image: Tensor, targets: Tensor, truth: Tensor) -> list[float]:
    """Losses of the averaged weights against the truth of held-out images, every ``EVERY`` steps."""
    student, judged, rng, curve = _student(), _student(), np.random.default_rng(0), []
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    weights, average = dict(student.named_parameters()), dict(judged.named_parameters())
    for step in range(STEPS):
        rows = torch.from_numpy(rng.integers(0, len(image), BATCH))
        loss = mapper_loss(student(tokens[image[rows]]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_ema(average, weights, ema_decay_at(DECAY, step, warmup=True))
        if (step + 1) % EVERY == 0:
            with torch.no_grad():
                curve.append(mapper_loss(judged(tokens[N_IMAGES:]), truth[N_IMAGES:]).item())
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a trained run with its training/ folder")
    parser.add_argument("--data", type=Path, help="the dataset that it was trained on")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="none: the noise alone")
    parser.add_argument("--steps", type=int, default=STEPS)
    told = parser.parse_args()
    on_a_run(told.run, told.data, told.seeds, told.steps) if told.run else averaged_targets()


if __name__ == "__main__":
    main()
