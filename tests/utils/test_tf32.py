"""The option against torch's own account of it."""

import logging
from collections.abc import Iterator

import pytest
import torch

from mmpt.config import load_config
from mmpt.tasks import Task
from mmpt.utils.tf32 import float32_products, set_tf32
from tests.jobs import ROOT, VIDEOCLIP
from tests.tiny_bert import tiny_bert


@pytest.fixture(autouse=True)
def keep_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_it_is_off_unless_asked_for(tmp_path) -> None:
    for wanted, options in ((True, ["model.tf32=true"]), (False, [])):
        config = load_config(ROOT / VIDEOCLIP, [f"dataset.bert_name={tiny_bert(tmp_path / 'bert')}", *options])
        Task.from_config(config).build_model(pretrained=False)
        assert torch.backends.cuda.matmul.allow_tf32 is wanted


@pytest.mark.parametrize(("allowed", "said"), [(True, "TF32, if the GPU can"), (False, "float32, not TF32")])
def test_a_machine_with_a_gpu_is_told(
    allowed: bool, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        set_tf32(allowed)
    assert caplog.text == "" or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with caplog.at_level(logging.INFO):
        set_tf32(allowed)
    assert f"float32 matrices are multiplied in {said}" in caplog.text


@pytest.mark.parametrize(("precision", "inside"), [("high", "high"), ("highest", "highest"), (None, "medium")])
def test_products_are_of_float32_inside_and_as_before_behind(precision, inside: str) -> None:
    def multiply() -> None:
        with float32_products(ones.device, precision):
            assert torch.get_float32_matmul_precision() == inside
            assert (ones @ ones).dtype == torch.float32
            raise ZeroDivisionError

    torch.set_float32_matmul_precision("medium")
    ones = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ZeroDivisionError):
            multiply()
        assert (ones @ ones).dtype == torch.bfloat16
    assert torch.get_float32_matmul_precision() == "medium"
