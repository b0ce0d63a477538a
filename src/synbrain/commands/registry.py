"""The list of commands. A command is a library function; there is no logic here.

To add one, put a typed function with a docstring into the library and name it here::

    "compare": Command(
        "synbrain.comparison.compare:compare",      # module:function
        "train and score every method on one dataset",  # one line of help
        SCORES,                                     # the group it is listed in
        example="synbrain compare DATA --out comparison",
        tell="synbrain.commands.telling:compared",  # prints: tell(result, typed) -> exit code or None
    ),

How a signature becomes options (``options``, ``Dataset``, ``SynBrain``, ``show_progress``) is said
in :mod:`synbrain.commands.parsing`. Help is built from the source file, without importing the module, so
keep options objects in a module that imports no torch. ``tell`` gets what the function returned and the
typed values by parameter (paths, not opened). ``hidden`` names parameters that only Python code passes,
``required`` those that Python code may leave out, but not the command line. ``folded`` opens runs for
prediction alone: a folded mapper takes less memory and predicts the same. ``reads_tokens`` looks for the
tokens of the options' encoder before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

START, DATA, MODEL = "start here", "data", "models"
SCORES, RESPONSES, DECODING = "scores and pictures", "responses to new pictures", "decoding"
HERE = "synbrain.commands."


@dataclass(frozen=True)
class Command:
    """A command: where its function lives, and what help says."""

    home: str
    help: str
    group: str
    example: str = ""
    tell: str = ""
    hidden: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    folded: bool = False
    reads_tokens: bool = False


COMMANDS: dict[str, Command] = {
    "demo": Command(
        HERE + "demo:demo",
        "the whole pipeline on a simulated brain, ending in a report",
        START,
        "synbrain demo --out demo-out --size tiny",
    ),
    "info": Command(
        HERE + "info:info", "what a dataset, run or config holds and needs", START, "synbrain info demo-out"
    ),
    "doctor": Command(
        HERE + "doctor:doctor", "versions, device, threads, disk, weights, and what is missing", START
    ),
    "completion": Command(
        HERE + "completion:completion",
        "completion of commands and options for a shell",
        START,
        "synbrain completion bash > ~/.local/share/bash-completion/completions/synbrain",
    ),
    "view": Command(
        HERE + "view:view",
        "drop a picture, see the cortex respond: a local page, or one file",
        START,
        "synbrain view demo",
    ),
    "simulate": Command(
        "synbrain.simulate.experiment:simulate",
        "write an NSD-layout tree of simulated subjects",
        DATA,
        "synbrain simulate tree --subjects 2 --size demo",
        HERE + "telling:simulated",
    ),
    "download nsd": Command(
        "synbrain.prepare.nsd.download:download_nsd",
        "fetch the Natural Scenes Dataset",
        DATA,
        "synbrain download nsd nsd --subjects 1 --sessions 2 --dry-run",
        HERE + "telling:downloaded",
        hidden=("retrying",),
    ),
    "prepare table": Command(
        "synbrain.prepare.table:prepare_table",
        "images/ + trials.csv + responses.npy to a dataset",
        DATA,
        "synbrain prepare table my-recordings data/me --unit 'percent signal change'",
        HERE + "telling:prepared",
    ),
    "prepare bids": Command(
        "synbrain.prepare.bids:prepare_bids",
        "single-trial NIfTI betas with events to a dataset",
        DATA,
        "synbrain prepare bids derivatives/glmsingle data/sub-01 --subject 01 --images stimuli",
        HERE + "telling:prepared",
    ),
    "prepare nsd": Command(
        "synbrain.prepare.nsd.prepare:prepare_nsd",
        "the NSD layout to a dataset",
        DATA,
        "synbrain prepare nsd nsd data/subj01 --subject 1",
        HERE + "telling:prepared",
    ),
    "check": Command(HERE + "check:check", "find data that is out of step", DATA, "synbrain check data/me"),
    "features": Command(
        "synbrain.features.store:make_tokens",
        "images to tokens",
        DATA,
        "synbrain features data/me --encoder efficientnet-lite0",
        HERE + "telling:encoded",
    ),
    "train": Command(
        "synbrain.training.train:train",
        "fit a model",
        MODEL,
        "synbrain train data/me --out runs/me",
        HERE + "telling:trained",
        required=("out",),
        reads_tokens=True,
    ),
    "adapt": Command(
        "synbrain.training.adapt:adapt",
        "fit a trained model to a new subject",
        MODEL,
        "synbrain adapt runs/group data/me --out runs/me --budget 1h",
        HERE + "telling:adapted",
        required=("out",),
    ),
    "calibrate": Command(
        "synbrain.training.calibrate:calibrate",
        "refit the trial noise of a run",
        MODEL,
        "synbrain calibrate runs/me data/more --out runs/me-again",
        HERE + "telling:calibrated",
        required=("out",),
    ),
    "tune-encoder": Command(
        "synbrain.tuning.tune:tune_encoder",
        "tune an image encoder on the recordings of many subjects",
        MODEL,
        "synbrain tune-encoder data/a data/b --out encoders/v4 --keep-out data/c",
        HERE + "telling:tuned",
    ),
    "import-reference": Command(
        "synbrain.reference.import_run:import_reference",
        "published checkpoints to a run",
        MODEL,
        "synbrain import-reference --vae last.pth --mapper last.pt --out runs/published",
        HERE + "telling:imported",
        required=("out",),
    ),
    "push": Command(
        HERE + "push:push",
        "upload a run to the Hugging Face hub, private by default",
        MODEL,
        "synbrain push runs/me lab/my-subject --data-licence 'CC BY 4.0'",
    ),
    "evaluate": Command(
        HERE + "evaluate:evaluate",
        "score a run on a dataset",
        SCORES,
        "synbrain evaluate runs/me data/me --out scores.json",
    ),
    "report": Command(
        "synbrain.viewer.report:report",
        "score a run and write one page of pictures",
        SCORES,
        "synbrain report runs/me data/me --out report",
        HERE + "telling:reported",
    ),
    "compare": Command(
        "synbrain.comparison.compare:compare",
        "train and score every method on one dataset",
        SCORES,
        "synbrain compare data/me --out comparison --methods linear",
        HERE + "telling:compared",
        hidden=("tokens", "registry"),
        reads_tokens=True,
    ),
    "adaptation-curve": Command(
        "synbrain.comparison.adaptation_curve:adaptation_curve",
        "scores of adaptation against the number of images",
        SCORES,
        "synbrain adaptation-curve runs/group data/me --out curve --budgets 25 100 all",
        HERE + "telling:adaptation_curve",
        required=("out",),
    ),
    "consistency": Command(
        "synbrain.analysis.consistency_report:consistency",
        "ROI profiles across subjects and trials",
        SCORES,
        "synbrain consistency runs/me data/me --out consistency",
        HERE + "telling:consistent",
        required=("out",),
    ),
    "predict": Command(
        "synbrain.model.prediction:predict_to",
        "images to expected responses",
        RESPONSES,
        "synbrain predict runs/me 'pictures/*.png' --sd --interval 0.9 --out expected.nii.gz",
        HERE + "telling:responses",
        folded=True,
    ),
    "synthesize": Command(
        "synbrain.model.synthesis:synthesize",
        "images to synthetic responses",
        RESPONSES,
        "synbrain synthesize runs/me pictures --samples 8 --out synthetic.npy",
        HERE + "telling:responses",
        folded=True,
    ),
    "decoder train": Command(
        "synbrain.decoding.train:train_decoder",
        "responses to image tokens",
        DECODING,
        "synbrain decoder train data/me --out decoders/me --budget 1h",
        HERE + "telling:decoder",
    ),
    "decoder evaluate": Command(
        "synbrain.decoding.evaluate:evaluate_decoder",
        "measured and synthetic responses through one decoder",
        DECODING,
        "synbrain decoder evaluate decoders/me data/me --run runs/me --out scores.json",
        HERE + "telling:decoded",
    ),
    "decoder reconstruct": Command(
        "synbrain.decoding.pictures.reconstruct:reconstruct",
        "pictures decoded from measured and synthetic responses",
        DECODING,
        "synbrain decoder reconstruct decoders/me data/me --run runs/me --out pictures",
        HERE + "telling:reconstructed",
        required=("out",),
    ),
    "decoder adapt": Command(
        "synbrain.decoding.adapt:adapt_decoder",
        "fit a decoder to a new subject",
        DECODING,
        "synbrain decoder adapt decoders/group data/me --out decoders/me --budget 1h",
        HERE + "telling:decoder",
    ),
    "decoder compare": Command(
        "synbrain.decoding.experiments.compare:compare_decoders",
        "the decoders of the paper's table on one subject",
        DECODING,
        "synbrain decoder compare decoders/group data/me --run runs/me --known-data data/other --out table",
        HERE + "telling:decoders_compared",
    ),
    "augment": Command(
        "synbrain.decoding.augment:augment",
        "a dataset of synthetic trials",
        DECODING,
        "synbrain augment runs/me data/me --hours 4 --out data/me-synthetic",
        HERE + "telling:augmented",
    ),
    "augmentation-curve": Command(
        "synbrain.decoding.experiments.curve:augmentation_curve",
        "what synthetic hours are worth to a decoder",
        DECODING,
        "synbrain augmentation-curve runs/me data/me --budget 1h --hours 0 1 2 4 --seeds 3 --out curve",
        HERE + "telling:augmentation_curve",
    ),
    "import-mindeye2": Command(
        "synbrain.decoding.published:import_mindeye2",
        "a published MindEye2 checkpoint to a decoder",
        DECODING,
        "synbrain import-mindeye2 last.pth --out decoders/published",
        HERE + "telling:decoder",
        required=("out",),
    ),
}
