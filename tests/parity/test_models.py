"""The towers and the downstream models against the released code (with transformers 3.4).

Outputs, names of parameters and numbers of values are compared.
"""

import argparse

import numpy as np
import pytest
import torch
from transformers import BertConfig

from mmpt.models import (
    MODELS,
    MMFusionSeparate,
    MMFusionSeparateActionLocalization,
    MMFusionSeparateActionSegmentation,
    MMFusionSeparateFullVideoBGRetrieval,
)
from mmpt.models.checkpoint import load_weights
from mmpt.tasks.task import freeze_all_but_layernorm
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.formula import formula_order
from tests.support.paths import GOLDEN
from tests.support.recorded import arrays, by_kind, inputs, record, tiny_towers

POOLED = ("pooled_video", "pooled_text")
MASKS = ("video_mask_outputs", "text_mask_outputs")


def assert_near(ours, golden, names, prefix="", atol=1e-5):
    """Asserts that the outputs `names` are close to the recorded ones. Measured: at most 5e-6."""
    for name in names:
        np.testing.assert_allclose(
            ours[name], golden[prefix + name], rtol=0, atol=atol, err_msg=name
        )


@by_kind
@torch.no_grad()
def test_outputs_of_the_towers_equal_the_release(kind):
    golden = arrays("model_separate")
    out = tiny_towers(8, kind)(**inputs(golden))
    assert list(out) == [*POOLED, "video_outputs", "text_outputs", *MASKS]
    for name in MASKS:
        assert out[name].dtype == torch.bool
        np.testing.assert_array_equal(out[name], golden[name])
    assert_near(out, golden, (*POOLED, "video_outputs", "text_outputs"), f"{kind}_")


@by_kind
@torch.no_grad()
def test_windows_and_captions_of_a_whole_video_equal_the_release(kind):
    golden = arrays("model_fullvideo_bg")
    model = tiny_towers(8, kind, MMFusionSeparateFullVideoBGRetrieval)
    assert_near(model(**inputs(golden), video_id=["a"]), golden, POOLED, f"{kind}_")


@by_kind
@torch.no_grad()
def test_step_logits_of_every_second_equal_the_release(kind):
    golden = arrays("model_actionseg")
    logits = tiny_towers(8, kind, MMFusionSeparateActionSegmentation)(**inputs(golden))[
        "logits"
    ]
    assert logits.shape == (3, 8, 779)
    assert_near(
        {"logits_first40": logits[..., :40]}, golden, ["logits_first40"], f"{kind}_"
    )
    np.testing.assert_array_equal(logits.argmax(-1), golden[f"{kind}_argmax"])


@by_kind
@torch.no_grad()
def test_scores_of_seconds_and_steps_equal_the_release(kind):
    golden = arrays("model_action_localization")
    batch = {name: value[None] for name, value in inputs(golden).items()}
    logits = tiny_towers(8, kind, MMFusionSeparateActionLocalization)(**batch)["logits"]
    assert len(logits) == golden["vmasks"].sum()
    # Measured 2e-5.
    assert_near({"sep_logits": logits}, golden, ["sep_logits"], f"{kind}_", atol=1e-4)


@torch.no_grad()
def test_a_checkpoint_of_the_release_loads_and_gives_its_outputs(caplog):
    path = GOLDEN / "checkpoint_norton_tiny.pt"
    content = load_checkpoint(path)
    parts = {"cfg", "model", "optimizer_history", "extra_state", "last_optimizer_state"}
    assert parts <= content.keys()
    assert isinstance(content["cfg"]["model"], argparse.Namespace)
    assert len(content["model"]) == 118

    model = tiny_towers(16)
    with caplog.at_level("DEBUG"):
        load_weights(model, path)
    embeddings = ("text_encoder.embeddings", "video_encoder.bert.embeddings")
    ignored = ", ".join(f"{name}.position_ids" for name in embeddings)
    (report,) = caplog.messages
    assert report.startswith(f"{path}: 116 tensors loaded, 118 renamed (as mmmodel.")
    assert report.endswith(
        f", ignored {ignored} (a constant that newer transformers do not store)"
    )
    golden = arrays("checkpoint_norton_tiny")
    out = model(**inputs(golden))
    assert_near(out, golden, out)


@pytest.mark.parametrize(
    ("name", "cls", "max_video_len"),
    [
        ("separate", MMFusionSeparate, 16),
        ("actionseg", MMFusionSeparateActionSegmentation, 32),
    ],
)
def test_state_dicts_have_the_released_names_shapes_and_order(name, cls, max_video_len):
    with torch.device("meta"):  # in the size of BERT-base
        full = cls(BertConfig(), num_hidden_video_layers=6, max_video_len=max_video_len)
    for size, model in (("tiny", tiny_towers(8, cls=cls)), ("full", full)):
        ours = [[key, list(value.shape)] for key, value in model.state_dict().items()]
        # The constant `position_ids` is no longer stored by transformers 5.
        released = [
            row[:2]
            for row in record(f"model_{name}_{size}_statedict")
            if not row[0].endswith("position_ids")
        ]
        assert ours == released
    if cls is MMFusionSeparate:
        assert formula_order(tiny_towers(8)) == record("model_separate_formula_order")
        assert sum(p.numel() for p in full.parameters()) == 177_423_360


@pytest.mark.parametrize(
    "cls", [MMFusionSeparateFullVideoBGRetrieval, MMFusionSeparateActionLocalization]
)
def test_heads_without_weights_of_their_own_have_the_keys_of_the_two_towers(cls):
    assert MODELS.get(cls.__name__, "model.model_cls") is cls
    assert list(tiny_towers(8, cls=cls).state_dict()) == list(
        tiny_towers(8).state_dict()
    )


def test_parameters_and_the_trainable_ones_have_the_released_order():
    golden = record("train_steps")
    model = tiny_towers(4)
    assert [name for name, _ in model.named_parameters()] == golden["trainable_all"]
    assert freeze_all_but_layernorm(model) == golden["trainable_layernorm_only"]


# Outputs of the released code in float64, with the weights of `spec_model`.
SPEC_NUMBERS = {
    "pooled_video": [
        [1.3090997596, -0.0702586425, -1.0148975568],
        [1.3043714978, -0.0739234316, -1.0064772632],
    ],
    "pooled_text": [
        [1.2539755382, 0.9881921915, 0.6083833793],
        [1.2069343482, 0.9961876119, 0.6308768449],
    ],
    "video_outputs": [1.2899694129, -0.0880293334, -0.9675740921],
    "text_outputs": [1.2648146608, 0.9984515914, 0.5868578899],
    "scores": [[17.5542866082, 17.6175020310], [17.1763271706, 17.2417563532]],
    "dummy_text": [
        [1.3148376588, -0.1033095692, -0.9639911260],
        [1.3100282460, -0.1067912558, -0.9553546123],
    ],
}


def spec_model() -> MMFusionSeparate:
    sizes = {"vocab_size": 200, "hidden_size": 24, "intermediate_size": 48}
    sizes |= {
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "max_position_embeddings": 64,
    }
    model = MMFusionSeparate(
        BertConfig(**sizes), num_hidden_video_layers=2, max_video_len=6
    )
    model = model.double().eval()
    parameters = dict(model.named_parameters())
    assert len(parameters) == 116
    for i, name in enumerate(sorted(parameters)):
        k = torch.arange(parameters[name].numel(), dtype=torch.float64)
        values = 0.3 * torch.sin(0.37 * k + 0.11 * i)
        if name.endswith("LayerNorm.weight"):
            values = 1 + 0.1 * torch.cos(0.21 * k + 0.05 * i)
        parameters[name].data.copy_(values.view_as(parameters[name]))
    return model


@torch.no_grad()
def test_float64_outputs_equal_the_release_to_ten_digits():
    caps = torch.tensor(
        [[101, 102, 5, 6, 7, 102, 0, 0], [101, 102, 9, 102, 0, 0, 0, 0]]
    )
    vmasks = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    n, f, d = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64) for size in (2, 6, 512)),
        indexing="ij",
    )
    vfeats = torch.sin(0.3 * n + 0.7 * f + 0.05 * d) * vmasks[..., None]
    model = spec_model()
    out = model(
        caps=caps, cmasks=caps != 0, vfeats=vfeats, vmasks=vmasks, video_id=["a", "b"]
    )
    dummy_caps = torch.tensor([[101, 102, 0, 102]]).repeat(2, 1)
    # The [CLS] key is masked.
    dummy_masks = torch.tensor([[False, True, False, True]]).repeat(2, 1)
    ours = {
        "pooled_video": out["pooled_video"][:, :3],
        "pooled_text": out["pooled_text"][:, :3],
        "video_outputs": out["video_outputs"][0, 1, :3],
        "text_outputs": out["text_outputs"][1, 2, :3],
        "scores": out["pooled_text"] @ out["pooled_video"].T,
        "dummy_text": model.forward_video(vfeats, vmasks, dummy_caps, dummy_masks)[0][
            :, :3
        ],
    }
    for name, expected in SPEC_NUMBERS.items():
        # Measured 5e-11.
        np.testing.assert_allclose(
            ours[name], expected, rtol=0, atol=1e-9, err_msg=name
        )
