"""What only a GPU can show: half precision through fairseq, and the same numbers as on the CPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mmpt.config.schema import LossConfig, SequenceContrastConfig
from mmpt.losses import MMContraLoss
from mmpt.models.checkpoint import load_checkpoint
from tests.jobs import VIDEOCLIP, corpus_overrides, launch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

NORTON_LOSS = LossConfig(
    sequence_contrast=SequenceContrastConfig(sequence_contrast_weight=0.1, threshold=8, prompt_ratio=0.3, scale=0.1),
    sinkhorn_iterations=50, beta=0.3, alpha_lse=1, fusion_weight=0.5,
)  # fmt: skip


def loss_and_gradients(device: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    batch = {
        "pooled_video": torch.randn(64, 48, generator=generator),
        "pooled_text": torch.randn(64, 48, generator=generator),
        "video_outputs": torch.randn(64, 10, 48, generator=generator),
        "text_outputs": torch.randn(64, 12, 48, generator=generator),
    }
    states = {name: value.to(device).requires_grad_() for name, value in batch.items()}
    masks = {
        "video_mask_outputs": (torch.rand(64, 10, generator=generator) < 0.7).to(device),
        "text_mask_outputs": (torch.rand(64, 12, generator=generator) < 0.7).to(device),
    }
    for mask in masks.values():
        mask[:, -1] = True
    total = MMContraLoss(NORTON_LOSS, clip_per_video=16).to(device)(**states, **masks).total
    total.backward()
    return [total.detach().cpu(), *(state.grad.cpu() for state in states.values() if state.grad is not None)]


def test_the_loss_is_the_same_as_on_the_cpu() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    for ours, wanted in zip(loss_and_gradients("cuda"), loss_and_gradients("cpu"), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_trains_and_refreshes(corpus: Path, tmp_path: Path, precision: str) -> None:
    options = [
        "fairseq.common.cpu=false",
        "fairseq.common.fp16=false",
        f"fairseq.common.{precision}=true",
        "fairseq.optimization.max_epoch=2",
    ]
    run = launch([VIDEOCLIP, "--jobtype", "local_single", *corpus_overrides(corpus, tmp_path), *options])
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    log = run.stdout + run.stderr
    first, second = (float(value) for value in re.findall(r"\| valid \| epoch 00\d .*? loss ([\d.]+)", log))
    assert second < first
    assert load_checkpoint(tmp_path / "checkpoint_last.pt")["extra_state"]["train_iterator"]["epoch"] == 3
