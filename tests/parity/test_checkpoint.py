"""A `checkpoint_best.pt` written by the original software: read without its code, loaded strictly,
same outputs.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig

from mmpt.models import MMFusionSeparate
from mmpt.models.checkpoint import load_weights
from mmpt.utils.checkpoint_file import load_checkpoint

GOLDEN = Path(__file__).parent / "golden"
RELEASED = GOLDEN / "checkpoint_norton_tiny.pt"


def tiny() -> MMFusionSeparate:
    config = BertConfig.from_json_file(GOLDEN / "tinybert_config.json")
    return MMFusionSeparate(config, num_hidden_video_layers=2, max_video_len=16).eval()


def test_whole_file_is_read():
    checkpoint = load_checkpoint(RELEASED)
    assert {
        "cfg",
        "model",
        "optimizer_history",
        "extra_state",
        "last_optimizer_state",
    } <= checkpoint.keys()
    assert isinstance(checkpoint["cfg"]["model"], argparse.Namespace)
    assert len(checkpoint["model"]) == 118


@torch.no_grad()
def test_outputs_equal_the_release():
    model = tiny()
    report = load_weights(model, RELEASED)
    assert len(report.loaded) == 116
    assert sorted(report.ignored) == [
        "text_encoder.embeddings.position_ids",
        "video_encoder.bert.embeddings.position_ids",
    ]
    assert not report.kept
    assert (
        report.renamed["mmmodel.text_encoder.pooler.dense.bias"] == "text_encoder.pooler.dense.bias"
    )
    golden = np.load(GOLDEN / "checkpoint_norton_tiny.npz")
    out = model(
        **{name: torch.from_numpy(golden[name]) for name in ("caps", "cmasks", "vfeats", "vmasks")}
    )
    for name, value in out.items():
        # Measured 1.8e-6.
        np.testing.assert_allclose(value, golden[name], rtol=0, atol=1e-5, err_msg=name)
