"""The two-tower model: padding, masks, gradients, packing, operations, and its configuration."""

import json
import shutil

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import CheckpointError, ConfigError, DataError
from mmpt.models import MMFusionSeparate
from mmpt.models.mmfusion import masked_mean
from mmpt.tasks.task import freeze_all_but_layernorm
from tests.support.towers import assert_same, draw, outputs_and_gradients, towers

BERT = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
MODEL = {
    "model_cls": "MMFusionSeparate",
    "video_encoder_cls": "MMBertForEncoder",
    "text_encoder_cls": "BertModel",
}


def fusion(**sizes) -> MMFusionSeparate:
    return towers(packed=False, std=0.3, **sizes).eval()


def test_a_masked_mean_averages_the_real_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 7, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 7, generator=generator) < 0.5
    mask[:, 3] = True
    naive = []
    for rows, real in zip(hidden, mask, strict=True):
        naive.append(rows[real].sum(0) / int(real.sum()))
    # Measured 2.3e-16.
    torch.testing.assert_close(
        masked_mean(hidden, mask), torch.stack(naive), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_masked_mean_has_the_dtype_of_the_states(dtype: torch.dtype) -> None:
    hidden = torch.tensor([[[1.0], [2.0], [4.0]]], dtype=dtype)
    mask = torch.tensor([[False, True, True]])
    pooled = masked_mean(hidden, mask)
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[3.0]]


@pytest.mark.parametrize("frozen", [False, True])
def test_the_operations_of_a_step_equal_the_count_of_torch(frozen: bool) -> None:
    model = towers(packed=False, hidden_size=64, intermediate_size=96)
    if frozen:
        freeze_all_but_layernorm(model)
    for tower in (model.video_encoder.bert, model.text_encoder):
        # torch counts plain matrix products on any device.
        tower.set_attn_implementation("eager")
    batch = draw(6)
    cmasks = torch.ones_like(batch["cmasks"])
    vmasks = torch.ones_like(batch["vmasks"])
    batch |= {"cmasks": cmasks, "vmasks": vmasks}
    with FlopCounterMode(display=False) as counter:
        output = model(**batch)
        (output["pooled_video"] + output["pooled_text"]).sum().backward()
    counted = 0
    for name, counts in counter.get_flop_counts().items():
        if name.endswith(("BertEncoder", "bert.encoder", "text_encoder.encoder")):
            counted += sum(counts.values())
    ours = float(model.flops(cmasks, vmasks))
    assert ours == pytest.approx(counted, rel=0.02)
    assert float(model.flops(cmasks[None], vmasks[None])) == ours  # a whole video


@torch.no_grad()
def test_padding_does_not_change_outputs():
    model, long = fusion(), draw(8)
    long["vmasks"][:, 4:], long["cmasks"][:, 9:] = False, False
    lengths = {"caps": 9, "cmasks": 9, "vfeats": 4, "vmasks": 4}
    short = model(**{name: value[:, : lengths[name]] for name, value in long.items()})
    long["vfeats"][~long["vmasks"]] = 1e3
    padded = model(**long)
    for name in ("pooled_video", "pooled_text"):
        torch.testing.assert_close(padded[name], short[name], rtol=0, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize("packed", [True, False])
def test_hidden_states_equal_the_outputs_without_packing(packed):
    model, clips = fusion(), draw(5)
    out = model(**clips)
    model.packed = packed
    states = model.forward_video(
        clips["vfeats"], clips["vmasks"], clips["caps"], clips["cmasks"], True
    )
    assert torch.equal(states, out["video_outputs"])
    states = model.forward_text(
        clips["caps"], clips["cmasks"], output_hidden_states=True
    )
    assert torch.equal(states, out["text_outputs"])


@torch.no_grad()
def test_a_clip_without_video_is_pooled_from_sep_alone():
    model, clips = fusion(), draw(2)
    clips["vmasks"][1] = False
    out = model(**clips)
    torch.testing.assert_close(
        out["pooled_video"][1], out["video_outputs"][1, -1], rtol=0, atol=0
    )


def test_all_parameters_except_for_the_poolers_get_a_gradient():
    model = fusion().train()
    out = model(**draw(2))
    (out["pooled_video"] * out["pooled_text"]).sum().backward()
    without_gradient = {name for name, p in model.named_parameters() if p.grad is None}
    assert without_gradient == {
        f"{tower}.pooler.dense.{kind}"
        for tower in ("video_encoder.bert", "text_encoder")
        for kind in ("weight", "bias")
    }


def test_features_of_another_shape_are_refused():
    clips = draw(2)
    doubled = clips | {"vfeats": torch.cat([clips["vfeats"]] * 2, -1)}
    with pytest.raises(DataError, match=r"must be 512-d, but are 1024-d"):
        fusion()(**doubled)
    assert fusion(input_dim=1024)(**doubled)["pooled_video"].shape == (2, 32)


@pytest.fixture
def bert_folder(tmp_path):
    """A folder with config and weights, as downloaded from the hub."""
    torch.manual_seed(1)
    BertModel(BertConfig(**BERT)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def from_config(folder, *, pretrained=True, model=None, **dataset) -> MMFusionSeparate:
    return MMFusionSeparate.from_config(
        DatasetConfig(
            **{"bert_name": str(folder), "max_video_len": 6, "max_len": 20, **dataset}
        ),
        ModelConfig(**{**MODEL, "num_hidden_video_layers": 2, **(model or {})}),
        pretrained=pretrained,
    )


def test_towers_start_from_bert_the_video_tower_from_its_first_layers(
    bert_folder,
):
    model = from_config(bert_folder)
    bert = BertModel.from_pretrained(bert_folder).state_dict()
    assert all(
        torch.equal(value, bert[name])
        for name, value in model.text_encoder.state_dict().items()
    )
    tower = model.video_encoder.bert.state_dict()
    assert all(torch.equal(value, bert[name]) for name, value in tower.items())
    words = (
        tower["embeddings.word_embeddings.weight"],
        model.text_encoder.get_input_embeddings().weight,
    )
    assert words[0].data_ptr() != words[1].data_ptr()


def test_evaluation_reads_no_bert_weights(bert_folder):
    (bert_folder / "model.safetensors").unlink()
    assert (
        from_config(bert_folder, pretrained=False).text_encoder.config.num_hidden_layers
        == 3
    )


def test_a_folder_without_weights_needs_random_init(bert_folder, caplog):
    (bert_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has none; .*`model.random_init: true`"):
        from_config(bert_folder)
    assert isinstance(
        from_config(bert_folder, model={"random_init": True}), MMFusionSeparate
    )
    assert "start from random ones" in caplog.text


def test_incomplete_or_unsuitable_berts_are_refused(bert_folder):
    config = json.loads((bert_folder / "config.json").read_text())
    deeper = bert_folder.with_name("deeper")
    shutil.copytree(bert_folder, deeper)
    (deeper / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(
        CheckpointError,
        match=r"whole BERT, but 16 tensors are missing, among them `encoder.layer.3",
    ):
        from_config(deeper)
    (deeper / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(CheckpointError, match=r"do not fit its config.json"):
        from_config(deeper)
    for change, message in (
        ({"model_type": "roberta"}, "is a `roberta` model"),
        ({"layer_norm_eps": "x"}, r"config.json of .* is not BERT's: .*layer_norm_eps"),
        (
            {"hidden_size": "16"},
            r"is not BERT's: .*'hidden_size' expected int, got str",
        ),
        (
            {"hidden_size": 17},
            r"is not BERT's: .*`num_attention_heads` \(2\), but is 17",
        ),
    ):
        (deeper / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ConfigError, match=message):
            from_config(deeper)
    (deeper / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json: no such file"):
        from_config(deeper)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"garbage" * 50, b""])
def test_damaged_weights_are_reported(bert_folder, name, content):
    (bert_folder / "model.safetensors").unlink()
    (bert_folder / name).write_bytes(content)
    with pytest.raises(
        CheckpointError,
        match=rf"^{bert_folder}/{name}: damaged \(.+\); download it again",
    ):
        from_config(bert_folder)


def test_the_error_for_an_unreachable_model_has_a_remedy(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError,
        match=r"is not a folder, .*\n?.*hf download nobody/no-bert",
    ):
        from_config("nobody/no-bert")


@pytest.mark.parametrize(
    ("model", "dataset", "message"),
    [
        (
            {"text_encoder_cls": "T5"},
            {},
            "`model.text_encoder_cls` must be `BertModel`, but is `T5`",
        ),
        (
            {"mm_encoder_cls": "MMBertForJoint"},
            {},
            "single-encoder .* not part of this framework",
        ),
        (
            {"num_hidden_video_layers": None},
            {},
            "`model.num_hidden_video_layers` must be set",
        ),
        ({"num_hidden_video_layers": 4}, {}, "at most the 3 layers of .*, but is 4"),
        (
            {},
            {"max_video_len": 39, "max_len": 50},
            r"`dataset.max_video_len \+ 2` must be at most the 40 .* but is 41",
        ),
        ({}, {"max_len": 48}, "must be at most the 40 positions of .*, but is 41"),
    ],
)
def test_mistakes_in_the_config_are_reported(bert_folder, model, dataset, message):
    with pytest.raises(ConfigError, match=message):
        from_config(bert_folder, model=model, **dataset)


@pytest.mark.parametrize("hide_cls", [False, True])
def test_packed_and_padded_towers_have_equal_outputs_and_gradients(
    hide_cls: bool,
) -> None:
    clips = draw(11, dtype=torch.float64)
    clips["vmasks"][3] = False  # a clip without a second of video
    clips["cmasks"][:, 0] = not hide_cls
    model = towers(std=0.3).double().eval()
    results = []
    for model.packed in (False, True):
        results.append(outputs_and_gradients(model, clips))
    assert_same(*results, atol=1e-13)  # measured 9e-15


def test_models_from_a_yaml_are_packed_by_default(bert_folder):
    assert from_config(bert_folder, pretrained=False).packed
    assert not from_config(
        bert_folder, pretrained=False, model={"packed": False}
    ).packed
