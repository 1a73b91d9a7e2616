"""Devices that torch can and cannot use. The GPUs are simulated."""

import pytest
import torch

from mmpt.utils.device_check import device_problem


def test_a_usable_device() -> None:
    assert device_problem("cpu") == device_problem(torch.device("cpu")) == ""


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:77"])
def test_an_unknown_device(name: str) -> None:
    assert device_problem(name)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (
            RuntimeError("CUDA error: no kernel image is available\nCompile with ..."),
            "CUDA error: no kernel image is available",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
            "CUDA out of memory",
        ),
        (torch.cuda.DeferredCudaCallError("CUDA call failed"), "CUDA call failed"),
    ],
)
def test_the_first_sentence_of_the_error_is_the_problem(
    error: Exception, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(torch, "ones", fail)
    assert device_problem("cuda") == problem
