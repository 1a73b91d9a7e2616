"""The downstream models as a YAML and a training see them; their numbers are compared in
tests/parity/test_heads.py.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig

from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import CheckpointError, ConfigError
from mmpt.models import (
    MMFusionSeparate,
    MMFusionSeparateActionLocalization,
    MMFusionSeparateActionSegmentation,
    MMFusionSeparateFullVideoBGRetrieval,
)
from mmpt.models.checkpoint_keys import Use
from mmpt.models.fairseqmmmodel import FairseqMMModel
from mmpt.models.heads import window_text
from mmpt.tasks.fairseqmmtask import FairseqMMTask
from tests.tiny_bert import tiny_bert

ENCODER, CLASSIFIER = "MMBertForEncoder", "MMBertForTokenClassification"


def head(cls: type[MMFusionSeparate]) -> MMFusionSeparate:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(**sizes, num_hidden_layers=1, max_position_embeddings=16)
    return cls(config, num_hidden_video_layers=1, max_video_len=4).eval()


def from_yaml(cls: type[MMFusionSeparate], bert: str, **model: Any) -> MMFusionSeparate:
    dataset = DatasetConfig(bert_name=bert, max_video_len=4, max_len=12)
    return cls.from_config(
        dataset, ModelConfig(num_hidden_video_layers=2, **model), pretrained=False
    )


@pytest.mark.parametrize(
    ("cls", "own", "foreign"),
    [
        (MMFusionSeparateActionSegmentation, CLASSIFIER, ENCODER),
        (MMFusionSeparateActionLocalization, ENCODER, CLASSIFIER),
        (MMFusionSeparateFullVideoBGRetrieval, ENCODER, CLASSIFIER),
        (MMFusionSeparate, ENCODER, CLASSIFIER),
    ],
)
def test_each_model_has_its_own_video_tower(
    cls: Any, own: str, foreign: str, tmp_path: Path
) -> None:
    bert = tiny_bert(tmp_path)
    for named in (own, None):
        assert type(from_yaml(cls, bert, video_encoder_cls=named).video_encoder).__name__ == own
    with pytest.raises(
        ConfigError, match=f"`model.video_encoder_cls` must be `{own}`, but is `{foreign}`"
    ):
        from_yaml(cls, bert, video_encoder_cls=foreign)


def test_a_fresh_step_classifier_has_bert_like_weights() -> None:
    classifier = head(MMFusionSeparateActionSegmentation).video_encoder.classifier
    assert isinstance(classifier, nn.Linear)
    assert classifier.weight.shape == (779, 8)
    assert float(classifier.weight.detach().std()) == pytest.approx(0.02, rel=0.05)  # 6232 draws
    assert not classifier.bias.detach().any()


@torch.no_grad()
@pytest.mark.parametrize(
    "cls",
    [
        MMFusionSeparate,
        MMFusionSeparateActionLocalization,
        MMFusionSeparateActionSegmentation,
        MMFusionSeparateFullVideoBGRetrieval,
    ],
)
def test_a_model_gives_what_it_says(cls: type[MMFusionSeparate]) -> None:
    caps, vfeats = torch.tensor([[[7, 8, 5, 6, 8]] * 2]), torch.randn(1, 2, 4, 512)
    batch = {
        "caps": caps,
        "cmasks": caps > 0,
        "vfeats": vfeats,
        "vmasks": torch.ones(1, 2, 4, dtype=torch.bool),
    }
    if cls is MMFusionSeparate:
        batch = {name: value[0] for name, value in batch.items()}
    assert set(head(cls)(**batch)) == set(cls.gives)


@torch.no_grad()
def test_windows_of_a_whole_video_have_the_text_that_the_coin_aligner_writes() -> None:
    model = head(MMFusionSeparateFullVideoBGRetrieval)
    caps = torch.tensor([[[7, 8, 5, 6, 8, 0], [7, 8, 9, 8, 0, 0]]])
    vfeats, vmasks = (
        torch.randn(1, 3, 4, 512),
        torch.tensor([[[True] * 4, [True] * 4, [True, True, False, False]]]),
    )
    out = model(caps=caps, cmasks=caps > 0, vfeats=vfeats, vmasks=vmasks)
    written = torch.tensor([[7, 8, 0, 8]] * 3), torch.tensor([[False, True, False, True]] * 3)
    assert torch.equal(out["pooled_video"], model.forward_video(vfeats[0], vmasks[0], *written)[0])
    plain = model.forward_video(
        vfeats[0], vmasks[0], written[0], torch.ones(3, 4, dtype=torch.bool)
    )[0]
    assert not torch.allclose(out["pooled_video"], plain)  # [CLS] is masked
    assert [tensor.tolist() for tensor in window_text(caps[0], 2)] == [
        [[7, 8]] * 2,
        [[False, True]] * 2,
    ]


@torch.no_grad()
def test_padded_seconds_do_not_show_in_other_seconds() -> None:
    vfeats, vmasks = (
        torch.randn(1, 2, 4, 512),
        torch.tensor([[[True] * 4, [True, True, False, False]]]),
    )
    caps = torch.tensor([[[7, 8, 9, 8]] * 2])
    for cls in (MMFusionSeparateActionSegmentation, MMFusionSeparateActionLocalization):
        model = head(cls)
        first = model(caps=caps, cmasks=caps > 0, vfeats=vfeats, vmasks=vmasks)["logits"]
        other = vfeats.masked_fill(~vmasks[..., None], 5.0)
        second = model(caps=caps, cmasks=caps > 0, vfeats=other, vmasks=vmasks)["logits"]
        if cls is MMFusionSeparateActionSegmentation:
            first, second = first[vmasks[0]], second[vmasks[0]]
        assert first.shape == (6, 779 if cls is MMFusionSeparateActionSegmentation else 2)
        torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("reset_optimizer", "use"), [(True, Use.START), (False, Use.RESUME)])
def test_a_training_with_a_fresh_optimizer_starts_and_any_other_goes_on(
    reset_optimizer: bool, use: Use
) -> None:
    model = nn.Linear(1, 1)
    task = SimpleNamespace(
        args=SimpleNamespace(reset_optimizer=reset_optimizer),
        _checkpoint_to_load=lambda: Path("a.pt"),
        _check_optimizer_state=lambda checkpoint, model: None,
        inner=SimpleNamespace(build_model=lambda *, pretrained: model),
    )
    assert FairseqMMTask.build_inner_model(task) == (model, "a.pt", use)  # type: ignore[arg-type]


def test_what_fairseq_loads_may_lack_the_classifier_at_the_start_only() -> None:
    pretrained = {
        f"mmmodel.{name}": value for name, value in head(MMFusionSeparate).state_dict().items()
    }
    coin = head(MMFusionSeparateActionSegmentation)
    state = dict(pretrained)
    FairseqMMModel(coin, "a.pt", Use.START).upgrade_state_dict_named(state, "")
    assert state.keys() == {f"mmmodel.{name}" for name in coin.state_dict()}
    with pytest.raises(CheckpointError, match=r"a\.pt: .*\n.*2 in the model only:\n.*classifier"):
        FairseqMMModel(coin, "a.pt", Use.RESUME).upgrade_state_dict_named(dict(pretrained), "")
