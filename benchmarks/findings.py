"""The measurements behind docs/research/findings.md.

    python benchmarks/findings.py static DATASET RUN --out DIR
    python benchmarks/findings.py circular DATASET RUN --out DIR [--train-shuffled]
    python benchmarks/findings.py ablations TABLE.json [TABLE.json ...] --out DIR

``static`` and ``circular`` score a run of ``synbrain train`` on its dataset; ``ablations`` reads what
``synbrain compare`` wrote. Each writes one JSON, one Markdown table and one picture into DIR.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.comparison.table import difference_cell
from synbrain.data.dataset import load_dataset
from synbrain.evaluation.latents import latent_retrieval
from synbrain.evaluation.measured import Measured, measure
from synbrain.features.store import open_tokens
from synbrain.features.tokens import split_pairs
from synbrain.figures.style import COLOURS, new_figure, save_png, tidy
from synbrain.files import read_json, write_json, write_text
from synbrain.metrics.intervals import mean_replicates, percentile_interval
from synbrain.metrics.retrieval import response_retrieval
from synbrain.metrics.voxel import mean_defined, pearson_within, voxel_r
from synbrain.model.subject import BoundModel
from synbrain.model.synbrain import SynBrain
from synbrain.training.config import TrainConfig
from synbrain.training.fit import fit_model
from synbrain.training.networks import Workspace, network_sizes, new_networks
from synbrain.training.subjects import TrainingSubject

# Tables 3 to 8 of the paper (subject 1 of NSD): MSE, Pearson, raw and synthetic retrieval in per cent
PAPER = {
    "reference": (0.079, 0.715, 94.7, 99.3),
    "no_sampling": (0.086, 0.687, 90.2, 88.4),
    "no_contrastive": (0.127, 0.635, 0.5, 0.4),
    "no_mapper": (0.105, 0.564, 94.7, 50.5),
    "latent_down2": (0.082, 0.703, 94.1, 98.9),
    "latent_down3": (0.087, 0.701, 93.5, 98.0),
    "mapper_depth4": (0.086, 0.704, 94.7, 98.5),
    "mapper_depth12": (0.080, 0.715, 94.7, 99.3),
    "diffusion": (0.088, 0.689, 94.7, 93.2),
}
SCORES = ("mse", "pearson", "raw_retrieval", "syn_retrieval")
N_SHUFFLES = 20
OURS = (*SCORES, "voxel_r", "response_retrieval")
APART = ("pearson", "voxel_r")


def opened(dataset_path: Path, run: Path) -> tuple[SynBrain, Measured]:
    """The run and the measured side of its dataset."""
    dataset, model = load_dataset(dataset_path), SynBrain.from_pretrained(run)
    train, test = split_pairs(dataset, open_tokens(dataset, model.config.encoder, model.config.layers))
    return model, measure(test, train, dataset.space)


def static(dataset: Path, run: Path, out: Path) -> None:
    """Pearson across voxels of the mean map and of a run, as published and after z-scoring each voxel."""
    model, measured = opened(dataset, run)
    predicted = model.predict(measured.test.tokens)
    flat = np.repeat(measured.mean[None].astype(np.float32), len(predicted), axis=0)
    found: dict[str, Any] = {}
    for name, mean in (("mean_map", flat), (model.config.recipe, predicted)):
        r = voxel_r(mean, measured.repeat_means)
        found[name] = {
            "pearson": within(mean, measured, z=False),
            "pearson_z": within(mean, measured, z=True),
            "voxel_r": mean_defined(r)[0],
        }
    write_json(out / "static.json", {"rows": found})
    lines = ["| row | Pearson, raw [95 %] | Pearson, z-scored [95 %] | voxel r |", "|---|---:|---:|---:|"]
    for name, said in found.items():
        lines.append(
            f"| {name} | {told(said['pearson'])} | {told(said['pearson_z'])} | {said['voxel_r']:.3f} |"
        )
    write_text(out / "static.md", "\n".join(lines) + "\n")
    figure = new_figure(4.6, 3.0)
    axes = figure.subplots()
    for place, name in enumerate(found):
        for shift, key, alpha in ((-0.18, "pearson", 1.0), (0.18, "pearson_z", 0.45)):
            value, interval = found[name][key]
            if value is not None:
                axes.bar(
                    place + shift, value, 0.34, color=COLOURS.get(name, COLOURS["synbrain"]), alpha=alpha
                )
                axes.plot([place + shift] * 2, interval, color="black", linewidth=1)
    axes.set_xticks(range(len(found)), list(found))
    axes.set_ylabel("Pearson across voxels, single trials")
    axes.set_title("dark: raw (published protocol); light: z-scored voxels", fontsize=9)
    tidy(axes)
    save_png(figure, out / "static.png")


def within(mean: NDArray[Any], measured: Measured, *, z: bool) -> tuple[float | None, list[float] | None]:
    """Pearson across voxels against every single trial, with its interval over images; None: undefined."""
    image = measured.test.image_of_trial
    trials = measured.test.trial_responses()
    sides = (mean[image], trials)
    if z:
        sides = (measured.standardised(sides[0]), measured.standardised(sides[1]))
        if np.abs(sides[0]).max() < 1e-4:  # the mean map has no pattern left, only rounding
            return None, None
    r = pearson_within(*sides)
    totals = np.bincount(image, weights=r, minlength=measured.test.n_images)
    interval = percentile_interval(mean_replicates(measured.weights, totals, measured.repeats))
    return float(r.mean()), None if interval is None else list(interval)


def told(score: tuple[float | None, list[float] | None]) -> str:
    """A value with its interval."""
    value, interval = score
    if value is None or interval is None:
        return "undefined"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def circular(dataset: Path, run: Path, out: Path, train_shuffled: bool) -> None:
    """Retrieval by latents and by responses, with right and with shuffled stimuli."""
    model, measured = opened(dataset, run)
    rows = {"right stimuli": retrievals(model, measured)}
    # other images are shown to the model than the brain saw; the published score looks at the model's alone
    generator = np.random.default_rng(0)
    drawn = [
        retrievals(model, measured, generator.permutation(measured.test.n_images)) for _ in range(N_SHUFFLES)
    ]
    rows["other stimuli at test time"] = {key: float(np.mean([d[key] for d in drawn])) for key in drawn[0]}
    if train_shuffled:
        config = TrainConfig.model_validate(read_json(run / "training" / "config.json"))
        pairs = measured.train
        mixed = np.random.default_rng(0).permutation(pairs.n_images)
        part = model.subject()
        subject = TrainingSubject(
            part.name, replace(pairs, tokens=pairs.tokens.take(mixed)), part.space, part.unit, part.scaling
        )
        with tempfile.TemporaryDirectory() as folder:
            networks = new_networks(network_sizes(subject.pairs.tokens, config), config.seed)
            workspace = Workspace(Path(folder), show_progress=True)
            shuffled = fit_model([subject], config, networks, workspace)
        rows["trained on shuffled images"] = retrievals(shuffled, measured)
    chance = 1 / measured.test.n_images
    write_json(out / "circular.json", {"recipe": model.config.recipe, "chance": chance, "rows": rows})
    lines = ["| model | synthetic retrieval | response retrieval | voxel r |", "|---|---:|---:|---:|"]
    for name, said in rows.items():
        lines.append(f"| {name} | {said['syn']:.3f} | {said['response']:.3f} | {said['voxel_r']:.3f} |")
    lines += [
        "",
        f"chance: {chance:.3f}; raw retrieval (measured responses): {rows['right stimuli']['raw']:.3f}",
    ]
    write_text(out / "circular.md", "\n".join(lines) + "\n")
    figure = new_figure(5.6, 3.0)
    axes = figure.subplots()
    for place, said in enumerate(rows.values()):
        axes.bar(place - 0.18, said["syn"], 0.34, color="#9ca3af", label="synthetic" if place == 0 else None)
        axes.bar(
            place + 0.18,
            said["response"],
            0.34,
            color=COLOURS["synbrain"],
            label="response" if place == 0 else None,
        )
    axes.axhline(chance, color="black", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(rows)), [name.replace(" ", "\n", 1) for name in rows], fontsize=8)
    axes.set_ylabel("top-1 retrieval")
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    save_png(figure, out / "circular.png")


def retrievals(model: SynBrain, measured: Measured, order: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """Synthetic, raw and response retrieval, and voxel r; ``order``: the image given in place of each."""
    bound = BoundModel(model, model.subject().name)
    given = measured.test.tokens if order is None else measured.test.tokens.take(order)
    predicted = bound.predict(given)
    # the published score compares synthetic responses with the images that were given to the model
    seen = replace(measured, test=replace(measured.test, tokens=given))
    n_way = measured.test.n_images
    row = latent_retrieval(model, bound.subject, predicted, seen, n_way=n_way, n_subsets=1)
    forward, _ = response_retrieval(predicted, measured.repeat_means, measured.mean, measured.sd)
    r = mean_defined(voxel_r(predicted, measured.repeat_means))[0]
    return {
        "syn": row.values["syn_retrieval"],
        "raw": row.values["raw_retrieval"],
        "response": forward,
        "voxel_r": r,
    }


def ablations(tables: list[Path], out: Path) -> None:
    """Differences of the ablations from the reference, the paper's beside those of ``synbrain compare``."""
    lines: list[str] = []
    figure = new_figure(3.4 * len(tables) + 3.4, 3.2)
    panels = figure.subplots(1, len(tables) + 1, sharex=True, sharey=True)
    names = [name for name in PAPER if name != "reference"]
    base = PAPER["reference"][1]
    panels[0].barh(range(len(names)), [PAPER[n][1] - base for n in names], color="#9ca3af")
    panels[0].set_title("paper, NSD subject 1", fontsize=9)
    for axes, path in zip(panels[1:], tables, strict=True):
        said = read_json(path)
        scores, seeds = said["scores"], said["over_seeds"]
        apart = said.get("differences_from_base", {})
        lines += [f"### {said['dataset']}", "", f"    {said['command']}", ""]
        lines += [
            "| variant | "
            + " | ".join(f"{m} (sd over seeds)" for m in OURS)
            + " | "
            + " | ".join(f"{m} - reference's [95 %]" for m in APART)
            + " | paper: MSE, Pearson, raw, syn |"
        ]
        lines += ["|---|" + "---:|" * (len(OURS) + len(APART) + 1)]
        for name in [n for n in (*PAPER, "latent_down1", "other_encoder") if n in scores]:
            cells = []
            for metric in OURS:
                value = scores[name].get(metric)
                sd = seeds.get(name, {}).get(metric, {}).get("sd")
                cells.append(
                    "-" if value is None else f"{value:.3f}" + (f" ({sd:.3f})" if sd is not None else "")
                )
            cells += [difference_cell(apart.get(name, {}).get(metric), digits=3) for metric in APART]
            paper = ", ".join(map(str, PAPER[name])) if name in PAPER else "-"
            lines.append(f"| {name} | {' | '.join(cells)} | {paper} |")
        lines.append("")
        for place, name in enumerate(names):
            if name in scores and "reference" in scores:
                axes.barh(
                    place, scores[name]["pearson"] - scores["reference"]["pearson"], color=COLOURS["synbrain"]
                )
                spread = seeds.get(name, {}).get("pearson", {}).get("values", [])
                dots = [v - scores["reference"]["pearson"] for v in spread if v is not None]
                axes.plot(dots, [place] * len(dots), ".", color="black", markersize=4)
        axes.set_title(said["dataset"], fontsize=9)
    for axes in panels:
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel("Pearson minus reference's", fontsize=8)
        tidy(axes)
    write_text(out / "ablations.md", "\n".join(lines) + "\n")
    save_png(figure, out / "ablations.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("static", "circular"):
        one = kinds.add_parser(kind)
        one.add_argument("dataset", type=Path)
        one.add_argument("run", type=Path)
        if kind == "circular":
            one.add_argument("--train-shuffled", action="store_true")
    kinds.add_parser("ablations").add_argument("tables", type=Path, nargs="+")
    for one in kinds.choices.values():
        one.add_argument("--out", type=Path, required=True)
    given = vars(parser.parse_args())
    kind = given.pop("kind")
    parts: dict[str, Callable[..., None]] = {"static": static, "circular": circular, "ablations": ablations}
    parts[kind](**given)


if __name__ == "__main__":
    main()
