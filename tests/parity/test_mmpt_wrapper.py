"""The inference wrapper (S3D and towers) against the scores recorded from the released code."""

import numpy as np
import pytest
import torch

from mmpt.config import DatasetConfig, ModelConfig
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.media.s3d import S3D
from tests.support.formula import fill_by_formula, hash01
from tests.support.recorded import arrays, tiny_towers
from tests.support.tiny_bert import tiny_bert

SHAPE = (1, 2, 16, 64, 64, 3)
TEXT = "cut the tomato into small pieces"


@pytest.fixture(scope="module")
def golden():
    return arrays("mmpt_wrapper")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MMPTModel:
    bert = tiny_bert(tmp_path_factory.mktemp("wrapper") / "bert")
    # Values by formula depend on the position of a tensor in the sorted names. `text_module`, which
    # is missing here, comes last, so the positions of the others are the recorded ones.
    return MMPTModel(
        tiny_towers(32, "hash"),
        DatasetConfig(bert_name=bert, max_video_len=32, max_len=96),
        ModelConfig(model_cls="MMFusionSeparate"),
        s3d=fill_by_formula(S3D(), "hash2"),
        normalise=False,
    ).eval()


def frames(dtype: torch.dtype) -> torch.Tensor:
    values = hash01(np.arange(np.prod(SHAPE), dtype=np.uint64), 2000).astype(np.float32)
    return torch.from_numpy(values.reshape(SHAPE)).to(dtype)


@torch.no_grad()
def test_the_documented_call_gives_the_recorded_score(model, golden):
    model, tokenizer, aligner = model
    caps, cmasks = aligner._build_text_seq(
        tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    )
    caps, cmasks = caps[None], cmasks[None]
    np.testing.assert_array_equal(caps, golden["caps"])
    np.testing.assert_array_equal(cmasks, golden["cmasks"])
    out = model(frames(torch.float32), caps, cmasks)
    for name in ("pooled_video", "pooled_text"):
        # Measured 6e-4.
        np.testing.assert_allclose(
            out[name], golden[name], rtol=0, atol=2e-3, err_msg=name
        )
    score = model(frames(torch.float32), caps, cmasks, return_score=True)["score"]
    assert score.shape == (1,)
    np.testing.assert_allclose(score, golden["score"], rtol=1e-3)  # measured 1.5e-4


@pytest.mark.slow
@torch.no_grad()
def test_the_score_in_float64_for_any_batch_size(model, golden):
    caps, cmasks = (
        torch.from_numpy(golden[name]).expand(3, -1) for name in ("caps", "cmasks")
    )
    video = frames(torch.float64)
    videos = torch.cat([video, 1 - video, video])
    model.double()
    try:
        scores = model(videos, caps, cmasks, return_score=True)["score"]
        # Measured 3e-16.
        np.testing.assert_allclose(
            scores[[0, 2]], golden["score_f64"].repeat(2), rtol=1e-5
        )
        assert abs(scores[1] - scores[0]) > 0.01, "another video, another score"
    finally:
        model.float()
