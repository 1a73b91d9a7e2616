"""The downstream models: configuration, outputs and loading.

Their numbers are compared with the released code in tests/parity/test_models.py.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import CheckpointError, ConfigError
from mmpt.models import (
    MMFusionSeparate,
    MMFusionSeparateActionLocalization,
    MMFusionSeparateActionSegmentation,
    MMFusionSeparateFullVideoBGRetrieval,
)
from mmpt.models.checkpoint import Use
from mmpt.tasks.fairseqmmstep import FairseqMMModel
from mmpt.tasks.fairseqmmtask import FairseqMMTask
from mmpt.utils.distributed import World
from tests.support.tiny_bert import smallest_bert_config, tiny_bert

ENCODER, CLASSIFIER = "MMBertForEncoder", "MMBertForTokenClassification"
TOWERS = [
    (MMFusionSeparateActionSegmentation, CLASSIFIER),
    (MMFusionSeparateActionLocalization, ENCODER),
    (MMFusionSeparateFullVideoBGRetrieval, ENCODER),
    (MMFusionSeparate, ENCODER),
]


def head(cls: type[MMFusionSeparate]) -> MMFusionSeparate:
    torch.manual_seed(0)
    config = smallest_bert_config(max_position_embeddings=16)
    return cls(config, num_hidden_video_layers=1, max_video_len=4).eval()


def whole_video() -> dict[str, torch.Tensor]:
    """Returns a video of three windows, the last of two seconds, and three texts."""
    caps = torch.tensor([[[7, 8, 5, 6, 8, 0], [7, 8, 9, 8, 0, 0], [7, 8, 5, 8, 0, 0]]])
    vmasks = torch.ones(1, 3, 4, dtype=torch.bool)
    vmasks[0, 2, 2:] = False
    return {
        "caps": caps,
        "cmasks": caps > 0,
        "vfeats": torch.randn(1, 3, 4, 512),
        "vmasks": vmasks,
    }


def from_yaml(cls: type[MMFusionSeparate], bert: str, **model: Any) -> MMFusionSeparate:
    dataset = DatasetConfig(bert_name=bert, max_video_len=4, max_len=12)
    return cls.from_config(
        dataset, ModelConfig(num_hidden_video_layers=2, **model), pretrained=False
    )


@pytest.mark.parametrize(("cls", "own"), TOWERS)
def test_each_model_has_its_own_video_tower(cls: Any, own: str, tmp_path: Path) -> None:
    bert = tiny_bert(tmp_path)
    for named in (own, None):
        model = from_yaml(cls, bert, video_encoder_cls=named)
        assert type(model.video_encoder).__name__ == own
    foreign = CLASSIFIER if own == ENCODER else ENCODER
    message = f"`model.video_encoder_cls` must be `{own}`, but is `{foreign}`"
    with pytest.raises(ConfigError, match=message):
        from_yaml(cls, bert, video_encoder_cls=foreign)


def test_a_new_step_classifier_is_initialised_as_in_bert() -> None:
    classifier = head(MMFusionSeparateActionSegmentation).video_encoder.classifier
    assert isinstance(classifier, nn.Linear)
    assert classifier.weight.shape == (779, 8)
    # 6232 draws.
    assert float(classifier.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not classifier.bias.detach().any()


@torch.no_grad()
@pytest.mark.parametrize(("cls", "_own"), TOWERS)
def test_outputs_are_declared(cls: Any, _own: str) -> None:
    batch = whole_video()
    if cls is MMFusionSeparate:
        batch = {name: value[0] for name, value in batch.items()}
    assert set(head(cls)(**batch)) == set(cls.outputs)


@torch.no_grad()
def test_windows_of_a_whole_video_have_the_text_of_the_coin_aligner() -> None:
    model = head(MMFusionSeparateFullVideoBGRetrieval)
    batch = whole_video()
    found = model(**batch)["pooled_video"]

    (vfeats,) = batch["vfeats"]
    (vmasks,) = batch["vmasks"]
    coin_text = torch.tensor([[7, 8, 0, 8]] * 3)
    masks = torch.tensor([[False, True, False, True]] * 3)
    expected, _, _ = model.forward_video(vfeats, vmasks, coin_text, masks)
    assert torch.equal(found, expected)
    unmasked, _, _ = model.forward_video(
        vfeats, vmasks, coin_text, torch.ones_like(masks)
    )
    assert not torch.allclose(found, unmasked)  # [CLS] is masked


@torch.no_grad()
@pytest.mark.parametrize(
    ("cls", "num_logits"),
    [
        (MMFusionSeparateActionSegmentation, 779),
        (MMFusionSeparateActionLocalization, 3),
    ],
)
def test_padded_seconds_do_not_change_real_seconds(cls: Any, num_logits: int) -> None:
    model = head(cls)
    batch = whole_video()
    vmasks = batch["vmasks"]
    first = model(**batch)["logits"]
    is_padding = ~vmasks[..., None]
    batch["vfeats"] = batch["vfeats"].masked_fill(is_padding, 5.0)
    second = model(**batch)["logits"]
    if cls is MMFusionSeparateActionSegmentation:
        first = first[vmasks[0]]
        second = second[vmasks[0]]
    assert first.shape == (10, num_logits)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("reset_optimizer", "use"), [(True, Use.START), (False, Use.RESUME)]
)
def test_a_run_with_a_new_optimizer_starts_and_any_other_run_resumes(
    reset_optimizer: bool, use: Use, tmp_path: Path
) -> None:
    path = str(tmp_path / "a.pt")
    model = nn.Linear(1, 1)
    args = SimpleNamespace(
        restore_file=path, reset_optimizer=reset_optimizer, fp16=False
    )
    inner: Any = SimpleNamespace(build_model=lambda *, pretrained: model)
    task: Any = SimpleNamespace(args=args, inner=inner, loss=nn.Module(), world=World())
    torch.save({"model": {}}, path)
    assert FairseqMMTask.build_inner_model(task) == (model, path, use)


def test_fairseq_accepts_a_missing_classifier_only_at_the_start() -> None:
    pretrained = FairseqMMModel(head(MMFusionSeparate)).state_dict()
    coin = head(MMFusionSeparateActionSegmentation)

    start = FairseqMMModel(coin, "a.pt", Use.START)
    state = dict(pretrained)
    start.upgrade_state_dict_named(state, "")
    assert state.keys() == start.state_dict().keys()
    assert all(name.startswith("mmmodel.") for name in state)

    resume = FairseqMMModel(coin, "a.pt", Use.RESUME)
    state = dict(pretrained)
    with pytest.raises(
        CheckpointError, match=r"a\.pt: .*\n.*2 in the model only:\n.*classifier"
    ):
        resume.upgrade_state_dict_named(state, "")
