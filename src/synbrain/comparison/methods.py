"""Every method that ``synbrain compare`` knows, by name; the order is the order of the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from synbrain.baselines.mlp_autoencoder import MLPAE
from synbrain.baselines.registry import BASELINES, make_baseline
from synbrain.comparison.diffusion import Diffusion
from synbrain.comparison.job import Job
from synbrain.comparison.recipes import Networks
from synbrain.errors import SynBrainError
from synbrain.evaluation.ceiling_row import ceiling_row
from synbrain.evaluation.oracle_row import oracle_row
from synbrain.evaluation.row import Row
from synbrain.files import write_json

ALWAYS = ("mean_map", "ridge", "ceiling")
AGAINST = "ridge"


class Maker(Protocol):
    """How a row is made."""

    def identity(self, job: Job) -> Any:
        """JSON-able: what a stored result must agree on besides data, seed and scoring."""

    def why_not(self, job: Job) -> str | None:
        """Why the row does not apply to this dataset; None where it does."""

    def score(self, job: Job) -> Row:
        """Fit on training images, score on test images."""


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        maker: fits and scores it.
        about: what it is, in one line.
        group: "controls", "linear", "networks", "ablations" or "bounds".
        seeded: whether a fit depends on the seed; others are fitted once.
        base: of an ablation, the row that it is a difference of.
    """

    maker: Maker
    about: str
    group: str
    seeded: bool = True
    base: str = ""


@dataclass(frozen=True)
class Baseline:
    """A baseline of the registry."""

    name: str

    def identity(self, job: Job) -> Any:
        settings = getattr(BASELINES[self.name](), "config", None)
        return [self.name, settings.model_dump(mode="json") if isinstance(settings, BaseModel) else None]

    def why_not(self, job: Job) -> str | None:
        return None

    def score(self, job: Job) -> Row:
        train = job.measured.train
        unfitted = make_baseline(self.name, job.measured.device)
        model = unfitted.fit(train, seed=job.seed, show_progress=job.show_progress)
        if job.curves is not None and isinstance(model, MLPAE):
            write_json(job.curves, {"autoencoder": model.curves, "second": model.mapper_curves})
        return job.score(model)


class Ceiling:
    """The noise ceiling, from repeats of the test images."""

    def identity(self, job: Job) -> Any:
        return "ceiling"

    def why_not(self, job: Job) -> str | None:
        return None

    def score(self, job: Job) -> Row:
        return ceiling_row(job.measured)


class Oracle:
    """The truth of a simulated subject."""

    def identity(self, job: Job) -> Any:
        return "oracle"

    def why_not(self, job: Job) -> str | None:
        return None if self._row(job, 1) is not None else "the dataset was not simulated"

    def score(self, job: Job) -> Row:
        row = self._row(job, job.options.samples)
        assert row is not None, "asked for although why_not() said why not"
        return row

    def _row(self, job: Job, n_samples: int) -> Row | None:
        return oracle_row(job.dataset, job.measured, n_samples=n_samples, seed=job.seed)


# baseline -> (group, what it is, whether a fit depends on the seed)
_BASELINES = {
    "mean_map": ("controls", "mean of the training trials, whatever the image", False),
    "shuffled": ("controls", "ridge on images permuted against the responses", True),
    "nearest": ("controls", "response to the nearest training image in token space", False),
    "ridge": ("linear", "kernel ridge, penalty per voxel by cross-validation", False),
    "banded_ridge": ("linear", "ridge with a weight for each group of tokens", True),
    "ridge_gaussian": ("linear", "ridge with low-rank plus diagonal Gaussian residuals", False),
    "ridge_isotropic": ("linear", "ridge with independent Gaussian noise of one size", False),
    "linear_reg": ("linear", "the paper's two linear layers", True),
    "mlp_ae": ("networks", "SynBrain's pipeline with an MLP autoencoder", True),
    "mlp_vae": ("networks", "SynBrain's pipeline with a variational MLP autoencoder", True),
    "mindsimulator": ("networks", "MLP autoencoder, diffusion prior over its latent; mean of 5 trials", True),
    "mindsimulator_1": ("networks", "the same, 1 trial", True),
}


def _ablations() -> dict[str, Method]:
    def row(about: str, recipe: Any = "reference", base: str = "reference", **difference: Any) -> Method:
        return Method(Networks(recipe, base=base, **difference), about, "ablations", base=base)

    ours: dict[str, Any] = {"recipe": "calibrated", "base": "synbrain"}
    autoencoder = {"vae": {"sampling": False, "loss": {"kl_weight": 0.0}}}
    no_contrast = {"vae": {"loss": {"clip_weight": 0.0}}, "mapper": {"contrastive_weight": 0.0}}
    return {
        "no_sampling": row("reference without variational sampling and KL", changes=autoencoder),
        "no_contrastive": row("reference without the contrastive loss", changes=no_contrast),
        "no_mapper": row("reference that decodes image tokens directly", without="mapper"),
        "mapper_depth4": row("reference, mapper half as deep", depth=4),
        "mapper_depth8": row("reference, mapper of the published depth", depth=8),
        "mapper_depth12": row("reference, mapper 1.5 times as deep", depth=12),
        "latent_down1": row("reference, VAE that halves the length once", down_blocks=1),
        "latent_down2": row("reference, VAE that halves the length twice", down_blocks=2),
        "latent_down3": row("reference, VAE that halves the length three times", down_blocks=3),
        "diffusion": Method(
            Diffusion(), "reference, diffusion transformer for the mapper", "ablations", base="reference"
        ),
        "other_encoder": row("reference on tokens of another stored encoder", other_encoder=True),
        "synbrain_no_networks": row("synbrain's linear path and noise alone", without="networks", **ours),
        "synbrain_no_linear": row("synbrain without the linear path", changes={"linear_path": False}, **ours),
        "synbrain_no_sampling": row("synbrain without variational sampling", changes=autoencoder, **ours),
        "synbrain_no_contrastive": row("synbrain without contrastive losses", changes=no_contrast, **ours),
    }


def _methods() -> dict[str, Method]:
    made = {}
    for name in [*(n for n in _BASELINES if n in BASELINES), *(n for n in BASELINES if n not in _BASELINES)]:
        group, about, seeded = _BASELINES.get(name, ("networks", "see baselines/registry.py", True))
        made[name] = Method(Baseline(name), about, group, seeded)
    made["reference"] = Method(Networks("reference"), "SynBrain as published, at the preset", "networks")
    made["synbrain"] = Method(Networks("calibrated", base="synbrain"), "SynBrain, calibrated", "networks")
    made |= _ablations()
    made["oracle"] = Method(Oracle(), "the truth of a simulated subject", "bounds", False)
    made["ceiling"] = Method(Ceiling(), "noise ceiling, from repeats of the test images", "bounds", False)
    return made


METHODS: dict[str, Method] = _methods()


def chosen_methods(words: Iterable[str], registry: dict[str, Method] | None = None) -> list[str]:
    """Names of methods in the table's order.

    Args:
        words: names, groups, or "all" (every system: all groups but the ablations), also several in one
            word with commas between; mean map, ridge and ceiling come along in any case.
        registry: where the names stand; ``METHODS`` if left out.

    Raises:
        SynBrainError: for a name that is not there, with those that are.
    """
    known = METHODS if registry is None else registry
    groups = {method.group for method in known.values()}
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    unknown = [name for name in names if name not in known and name not in groups | {"all"}]
    if unknown or not names:
        problem = f"no method {', '.join(map(repr, unknown))}" if unknown else "no method was named"
        raise SynBrainError(
            problem, f"choose among all, {', '.join(sorted(groups))} (groups), or {', '.join(known)}"
        )
    wanted = {*names, *ALWAYS}
    systems = "all" in wanted
    return [
        n
        for n, m in known.items()
        if n in wanted or m.group in wanted or (systems and m.group != "ablations")
    ]
