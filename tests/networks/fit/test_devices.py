"""One way to a device for every fit: what is asked for is taken, or refused in a sentence."""

from __future__ import annotations

import pytest
import torch
from accelerate import PartialState

from synbrain import TrainOptions, train
from synbrain.errors import SynBrainError
from synbrain.networks.fit.devices import accelerator_on, processes_on
from synbrain.simulate.example import toy_dataset


def test_the_cpu_is_taken_where_it_is_asked_for() -> None:
    assert processes_on("cpu").device.type == "cpu"
    assert accelerator_on("cpu").device.type == "cpu"


def test_another_device_than_that_of_an_earlier_fit_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that accelerate chose does not stay where the CPU is asked for afterwards."""
    processes_on("cpu")
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("cuda"))
    assert processes_on("cpu").device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "mend"),
    [("tpu9", "choose auto"), ("meta", "choose auto"), ("cuda:1", "CUDA_VISIBLE_DEVICES=1")],
)
def test_what_cannot_be_fitted_on_is_refused_before_anything_is_read(device: str, mend: str) -> None:
    with pytest.raises(SynBrainError, match=mend):
        train([toy_dataset()], TrainOptions(encoder="pixels", device=device))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(SynBrainError, match="no device 'cuda'"):
        processes_on("cuda")
