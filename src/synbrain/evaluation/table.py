"""A score table in words: for the terminal, and as Markdown."""

from __future__ import annotations

from synbrain.evaluation.scores import Scores
from synbrain.markdown import markdown_table

# metric -> heading; those with no value in any row are left out
COLUMNS = {
    "voxel_r": "voxel r",
    "voxel_r_fraction": "of ceiling",
    "voxel_r_trial": "voxel r, trials",
    "skill": "skill",
    "response_retrieval": "retrieval",
    "mse": "MSE",
    "pearson": "Pearson",
    "cosine": "cosine",
    "crps": "CRPS",
    "energy_score": "energy",
    "variance_ratio": "var. ratio",
    "coverage_50": "50 % cover",
    "coverage_90": "90 % cover",
    "noise_covariance_r": "noise cov. r",
    "raw_retrieval": "raw ret.",
    "syn_retrieval": "syn ret.*",
}
WORDS = {
    "voxel_r": "voxel r: Pearson across test images per voxel, against the repeat mean, mean over voxels",
    "voxel_r_fraction": "of ceiling: mean voxel r over mean noise ceiling, reliable voxels",
    "voxel_r_trial": "voxel r, trials: the same against single trials",
    "skill": "skill: share of the mean map's MSE that is removed (single trials)",
    "response_retrieval": "retrieval: each synthetic mean finds its image's measured response among all",
    "mse": "MSE, Pearson, cosine: across voxels within a trial, against single trials (published protocol)",
    "crps": "CRPS, energy: of single trials under predictive draws, in training sd; smaller is better",
    "variance_ratio": "var. ratio: variance of synthetic over that of measured trials within an image, "
    "median over voxels; 1 is right",
    "coverage_50": "cover: share of measured trials inside the central interval of predictive draws, which "
    "hold trial noise and error of the mean",
    "noise_covariance_r": "noise cov. r: off-diagonal noise covariances, synthetic against measured trials",
    "raw_retrieval": "raw ret.: measured responses, encoded by the VAE, find their image",
    "syn_retrieval": "* syn ret.: the same for synthetic responses, which is circular",
}


def header(scores: Scores) -> str:
    """One line: dataset, sizes, target, ceiling."""
    about = scores.about
    ceiling = scores.rows.get("ceiling", {}).get("voxel_r")
    known = "unknown" if ceiling is None or ceiling.value is None else f"{ceiling.value:.3f}"
    columns = f"{about.n_voxels} {about.voxels_are or 'voxels'}"
    return (
        f"{about.dataset}: {about.n_test_images} test images, {about.n_test_trials} trials, {columns}, "
        f"unit {about.unit}; voxel r ceiling of the repeat mean {known}"
    )


def cells(scores: Scores) -> tuple[list[str], list[list[str]]]:
    """(headings, rows of text); a dash where a metric does not apply."""
    shown = [
        m for m in COLUMNS if any((s := row.get(m)) and s.value is not None for row in scores.rows.values())
    ]
    body = []
    for name, row in scores.rows.items():
        texts = [row[m].value if m in row else None for m in shown]
        body.append([name, *("-" if value is None else f"{value:.3f}" for value in texts)])
    return ["row", *(COLUMNS[m] for m in shown)], body


def of_fewer_images(scores: Scores) -> str:
    """That the run was fitted on fewer images than the rows beside it; empty where it was not."""
    about = scores.about
    fitted, there = about.n_fitted_images, about.n_train_images
    if fitted is None or there is None or fitted >= there:
        return ""
    return f"the run was fitted on {fitted} of the {there} training images, the other rows on all {there}"


def explanations(scores: Scores) -> list[str]:
    """What each shown column means, and what the rows could not say."""
    head, _ = cells(scores)
    fewer = of_fewer_images(scores)
    lines = [f"{fewer}; `synbrain adaptation-curve` gives all the same images"] if fewer else []
    lines += [WORDS[m] for m in COLUMNS if m in WORDS and COLUMNS[m] in head]
    retrieval = {"raw ret.", "syn ret.*"} & set(head)
    if retrieval and scores.about.n_way:
        lines.append(f"raw and syn retrieval: top-1 of {scores.about.n_way} images")
    missing = {s.note for row in scores.rows.values() for s in row.values() if s.value is None and s.note}
    return [*lines, *(f"left out: {note}" for note in sorted(missing))]


def markdown(scores: Scores) -> str:
    """The table in Markdown with its header and explanations."""
    head, body = cells(scores)
    lines = markdown_table(head, body)
    return "\n".join([header(scores), "", *lines, "", *(f"- {line}" for line in explanations(scores))])


def terminal(scores: Scores, width: int = 110) -> str:
    """The table in aligned columns, wrapped into several where it is wider than ``width``."""
    head, body = cells(scores)
    columns = [[head[k], *(row[k] for row in body)] for k in range(len(head))]
    sizes = [max(map(len, column)) for column in columns]
    lines, start = [header(scores), ""], 1
    while start < len(head):
        stop, used = start, sizes[0]
        while stop < len(head) and (stop == start or used + 2 + sizes[stop] <= width):
            used += 2 + sizes[stop]
            stop += 1
        for k in range(len(body) + 1):
            first = columns[0][k].ljust(sizes[0])
            lines.append("  ".join([first, *(columns[c][k].rjust(sizes[c]) for c in range(start, stop))]))
        lines.append("")
        start = stop
    return "\n".join([*lines, *explanations(scores)])
