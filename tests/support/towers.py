"""Small two-tower models and random clips, for tests that compare two ways to compute outputs."""

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig

from mmpt.batch import ModelOutput
from mmpt.models import MMFusionSeparate

SECONDS, SLOTS, WORDS = 6, 12, 50


def towers(
    *,
    packed: bool = True,
    dropout: float = 0.0,
    std: float = 0.0,
    training: int | str = "auto",
    inference: int | str = "auto",
    **sizes: Any,
) -> MMFusionSeparate:
    """Returns a model in training mode with a video tower of 2 layers and a text tower of 3.

    Args:
        std: standard deviation of all weights. Default: weights are initialised as in BERT.
        training: `model.checkpoint_activations`.
        inference: `clips_per_forward`.
        sizes: changes to the configuration of the BERT.
    """
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = BertConfig(
        **{"vocab_size": WORDS, "intermediate_size": 64, **small, **sizes},
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    model = MMFusionSeparate(
        config,
        num_hidden_video_layers=2,
        max_video_len=SECONDS,
        packed=packed,
        checkpoint_activations=training,
        clips_per_forward=inference,
    )
    if std:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=std)
    return model.train()


def draw(
    num: int, seed: int = 1, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Returns a batch of `num` clips of 1 to `SECONDS` seconds and 1 to 9 word pieces."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.randint(1, SECONDS + 1, (num, 1), generator=generator)
    slots = torch.randint(4, SLOTS + 1, (num, 1), generator=generator)
    return {
        "caps": torch.randint(5, WORDS, (num, SLOTS), generator=generator),
        "cmasks": torch.arange(SLOTS) < slots,
        "vfeats": torch.randn(num, SECONDS, 512, generator=generator).to(dtype),
        "vmasks": torch.arange(SECONDS) < seconds,
    }


def outputs_and_gradients(
    model: MMFusionSeparate, clips: dict[str, Tensor]
) -> tuple[ModelOutput, dict[str, Tensor]]:
    """Returns the outputs of a model, and the gradients of a scalar that depends on all of them.

    States that the output mask leaves out are set to zero.
    """
    out = model(**clips)
    model.zero_grad()
    for tower in ("text", "video"):
        out[f"{tower}_outputs"] = (
            out[f"{tower}_outputs"] * out[f"{tower}_mask_outputs"][..., None]
        )
    text, video = out["text_outputs"].pow(2).sum(), out["video_outputs"].pow(2).sum()
    ((out["pooled_video"] * out["pooled_text"]).sum() + text + video).backward()
    return out, {
        name: p.grad.clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def assert_same(ours: Any, theirs: Any, atol: float) -> None:
    """Asserts that two results of `outputs_and_gradients` are close."""
    assert ours[1].keys() == theirs[1].keys()
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=atol)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-10, atol=1e-11)
