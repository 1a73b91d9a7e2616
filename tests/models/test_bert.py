"""Dtypes and initial weights of the video token MLP, and BERT from a stand-in for the hub.

Its outputs are compared with the released code in tests/parity/test_models.py.
"""

from pathlib import Path

import pytest
import torch
from transformers import BertModel

from mmpt.errors import CheckpointError
from mmpt.models.bert import VideoTokenMLP, read_bert_config, read_bert_weights
from tests.support.hub_server import Hub
from tests.support.tiny_bert import smallest_bert_config


def test_float16_features_are_cast_to_the_dtype_of_the_weights():
    features = torch.ones(1, 2, 6)
    mlp = VideoTokenMLP(6, 4)
    assert mlp(features.half()).dtype == torch.float32
    assert mlp.bfloat16()(features).dtype == torch.bfloat16


def test_initial_weights():
    torch.manual_seed(0)
    mlp = VideoTokenMLP(512, 256)
    for linear in (mlp.linear1, mlp.linear2):
        assert abs(linear.weight.std().item() - 0.02) < 2e-4
        assert not linear.bias.any()
    assert (mlp.LayerNorm.weight == 1).all()
    assert mlp.LayerNorm.eps == 1e-5


def test_a_downloaded_bert_is_used_without_asking_the_hub_again(
    hub: Hub, tmp_path: Path
) -> None:
    saved = BertModel(smallest_bert_config())
    saved.save_pretrained(tmp_path)
    hub.add("a/bert", {path.name: path.read_bytes() for path in tmp_path.glob("*.*")})

    def read() -> dict[str, torch.Tensor]:
        config = read_bert_config("a/bert")
        bert = read_bert_weights("a/bert", config, random_init=False)
        assert bert is not None
        return bert.state_dict()

    torch.testing.assert_close(read(), saved.state_dict(), rtol=0, atol=0)
    hub.requests.clear()
    hub.failures[""] = 502
    torch.testing.assert_close(read(), saved.state_dict(), rtol=0, atol=0)
    assert hub.requests == []


def test_a_failing_hub_is_asked_once(hub: Hub) -> None:
    """Otherwise, each request of a download would be repeated for 23 seconds."""
    hub.failures[""] = 502
    for read in (
        lambda: read_bert_config("a/bert"),
        lambda: read_bert_weights("a/bert", smallest_bert_config(), random_init=False),
    ):
        hub.requests.clear()
        with pytest.raises(CheckpointError, match=r"a/bert .*\(status 502\).*HF_HOME"):
            read()
        assert hub.requests == ["HEAD /"]


def test_a_path_without_a_folder_is_an_error_without_the_hub(hub: Hub) -> None:
    with pytest.raises(
        CheckpointError, match=r"/no/bert .*cannot be a name of the hub"
    ):
        read_bert_config("/no/bert")
    assert hub.requests == []
