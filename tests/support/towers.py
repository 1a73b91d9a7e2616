"""Small two-tower models and random clips, the same in every test that compares two ways to compute
them.
"""

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
    """Return towers of 2 and 3 layers of width 32 in training mode, for clips of `SECONDS`.

    Weights are drawn as for a fresh BERT, or all with the standard deviation `std`.
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
    """Return a batch of `num` clips of 1 to `SECONDS` seconds and 1 to 9 word pieces."""
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
    """Return what the model gives, with zeros for states that are not pooled, and the gradients by
    name of a number that every output takes part in.
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
    """Compare what two calls of `outputs_and_gradients` return; gradients also relatively."""
    assert ours[1].keys() == theirs[1].keys()
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=atol)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-10, atol=1e-11)
