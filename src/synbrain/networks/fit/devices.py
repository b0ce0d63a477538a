"""The device that a fit works on, and the processes that share it."""

from __future__ import annotations

from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, KwargsHandler

from synbrain.errors import SynBrainError
from synbrain.features.encoder import pick_device


def processes_on(device: str) -> PartialState:
    """The processes of this fit, each with its device.

    Args:
        device: auto (CUDA, then Apple's MPS, then the CPU), cpu, cuda or mps. Among several GPUs accelerate
            gives each process its own, so a number (``cuda:1``) is refused: set ``CUDA_VISIBLE_DEVICES``.

    Raises:
        SynBrainError: a device that is not there or cannot be chosen; or several processes that already
            work on another one.
    """
    kind, _, number = device.partition(":")
    if number:
        mend = f"pass --device {kind}" + (f" and set CUDA_VISIBLE_DEVICES={number}" if kind == "cuda" else "")
        raise SynBrainError(f"a fit cannot be put on {device!r}", mend)
    wanted = pick_device(device).type
    if wanted not in ("cpu", "cuda", "mps"):
        raise SynBrainError(f"nothing can be fitted on {device!r}", "choose auto, cpu, cuda or mps")
    state = PartialState(cpu=wanted == "cpu")
    if state.device.type != wanted and state.num_processes == 1:  # of an earlier fit in this process
        AcceleratorState._reset_state(reset_partial_state=True)
        state = PartialState(cpu=wanted == "cpu")
    if state.device.type != wanted:
        raise SynBrainError(
            f"the processes work on {state.device.type}, not on {device}",
            f"start them with --device {state.device.type}, or let accelerate choose with --device auto",
        )
    return state


def accelerator_on(device: str, *, parts_rest: bool = False) -> Accelerator:
    """Accelerate's side of a training on ``device``; autocast is the loop's, as stages differ in it.

    Args:
        device: as the options have it.
        parts_rest: whether a step of one subject leaves layers of the others without gradients.
    """
    cpu = processes_on(device).device.type == "cpu"
    handlers: list[KwargsHandler] = (
        [DistributedDataParallelKwargs(find_unused_parameters=True)] if parts_rest else []
    )
    return Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=handlers)
