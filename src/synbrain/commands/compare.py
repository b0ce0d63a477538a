"""``synbrain compare``: train and score every method on one dataset."""

from __future__ import annotations

from pathlib import Path

from synbrain.training.options import MapperOptions, TrainOptions, VAEOptions

OF_RECIPE = TrainOptions()


def compare(
    dataset: Path,
    *,
    out: Path,
    methods: list[str] = ["all"],
    seeds: int = 3,
    preset: str = "tiny",
    encoder: str = "efficientnet-lite0",
    layers: list[str] | None = None,
    samples: int = 20,
    n_way: int = 300,
    vae: VAEOptions = OF_RECIPE.vae,
    mapper: MapperOptions = OF_RECIPE.mapper,
    resume: bool = False,
    overwrite: bool = False,
) -> int:
    """Train and score methods on one dataset; one table, the same images and metrics for all.

    Every finished fit is kept in OUT/results at once; the same command with --resume goes on, and fits again
    only what changed. A method that fails is told in the table and does not stop the others; the exit code
    is then 1.

    Args:
        dataset: folder of a prepared dataset with tokens.
        out: folder for table.md, table.json, comparison.png, training_curves.png (of MLP systems) and
            results/.
        methods: all (every system), groups (controls, linear, networks, bounds, ablations) or names, with
            commas or spaces between; mean_map, ridge and ceiling come along in any case.
        seeds: number of seeds; what does not depend on a seed is fitted once.
        preset: sizes of the networks.
        encoder: whose tokens to use.
        layers: token layers; all that were made if left out.
        samples: synthetic trials per test image (at least 19 for 90 % intervals).
        n_way: candidates in raw and synthetic retrieval.
        vae: settings of stage 1 that differ from the recipes, for every method with networks of SynBrain.
        mapper: settings of stage 2, likewise.
        resume: keep finished fits whose data and configuration are the same.
        overwrite: replace an earlier comparison.
    """
    from synbrain.comparison.compare import compare as run
    from synbrain.comparison.options import CompareOptions
    from synbrain.comparison.results import stored_curves
    from synbrain.comparison.table import write_table
    from synbrain.data.dataset import load_dataset
    from synbrain.figures.comparison import comparison_dots
    from synbrain.figures.style import save_png
    from synbrain.figures.training import autoencoder_curves
    from synbrain.training.overrides import overridden

    given = {
        "methods": methods, "seeds": seeds, "preset": preset, "encoder": encoder, "layers": layers,
        "samples": samples, "n_way": n_way, "vae": vae, "mapper": mapper,
    }  # fmt: skip
    options = overridden(CompareOptions(), given)
    comparison = run(
        load_dataset(dataset), options, out=out, resume=resume, overwrite=overwrite, show_progress=True
    )
    words = write_table(comparison, out)
    save_png(comparison_dots(comparison.scores), out / "comparison.png")
    pictures = ["comparison.png"]
    if curves := stored_curves(out, comparison.scores.rows):
        save_png(autoencoder_curves(curves), out / "training_curves.png")
        pictures.append("training_curves.png")
    print(words)
    for name, problem in comparison.failed.items():
        print(f"{name} failed: {problem}")
    print(f"table -> {out / 'table.md'}, {out / 'table.json'}, {', '.join(str(out / p) for p in pictures)}")
    return 1 if comparison.failed else 0
