"""The towers against the outputs, names and numbers recorded from the release (transformers
3.4).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig

from mmpt.models import MMFusionSeparate
from mmpt.models.freezing import freeze_all_but_layernorm
from tests.parity.formula import fill_by_formula, formula_order

GOLDEN = Path(__file__).parent / "golden"
FLOATS = ("pooled_video", "pooled_text", "video_outputs", "text_outputs")
MASKS = ("video_mask_outputs", "text_mask_outputs")


def tiny(max_video_len: int) -> MMFusionSeparate:
    config = BertConfig.from_json_file(GOLDEN / "tinybert_config.json")
    return MMFusionSeparate(config, num_hidden_video_layers=2, max_video_len=max_video_len).eval()


def batch_of(arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(arrays[name]) for name in ("caps", "cmasks", "vfeats", "vmasks")}


def listing(name: str) -> list[tuple[str, list[int]]]:
    """State dict of the release, without the constant `position_ids` that transformers 5 no longer
    stores.
    """
    rows = json.loads((GOLDEN / name).read_text())
    return [(key, shape) for key, shape, _ in rows if not key.endswith("position_ids")]


@pytest.mark.parametrize("kind", ["sin", "hash"])
@torch.no_grad()
def test_outputs_equal_the_release(kind):
    golden = np.load(GOLDEN / "model_separate.npz")
    out = fill_by_formula(tiny(max_video_len=8), kind)(**batch_of(golden))
    assert list(out) == [*FLOATS, *MASKS]
    for name in MASKS:
        assert out[name].dtype == torch.bool
        np.testing.assert_array_equal(out[name], golden[name])
    for name in FLOATS:
        # Got 5e-6.
        np.testing.assert_allclose(
            out[name], golden[f"{kind}_{name}"], rtol=0, atol=1e-5, err_msg=name
        )


def test_small_state_dict_has_the_released_names_shapes_and_order():
    ours = [(name, list(value.shape)) for name, value in tiny(8).state_dict().items()]
    assert ours == listing("model_separate_tiny_statedict.json")
    assert formula_order(tiny(8)) == json.loads(
        (GOLDEN / "model_separate_formula_order.json").read_text()
    )


def test_bert_base_has_the_released_names_shapes_and_count():
    with torch.device("meta"):
        model = MMFusionSeparate(BertConfig(), num_hidden_video_layers=6, max_video_len=16)
    ours = [(name, list(value.shape)) for name, value in model.state_dict().items()]
    assert ours == listing("model_separate_full_statedict.json")
    assert sum(p.numel() for p in model.parameters()) == 177_423_360


def test_parameters_and_trainable_set_come_in_the_released_order():
    golden = json.loads((GOLDEN / "train_steps.json").read_text())
    model = tiny(4)
    assert [name for name, _ in model.named_parameters()] == golden["trainable_all"]
    assert freeze_all_but_layernorm(model) == golden["trainable_layernorm_only"]


# Recorded in float64 from the release with a third set of weights; see `spec_model`.
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
    config = BertConfig(
        vocab_size=200,
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=48,
        max_position_embeddings=64,
        num_hidden_layers=4,
    )
    model = MMFusionSeparate(config, num_hidden_video_layers=2, max_video_len=6).double().eval()
    parameters = dict(model.named_parameters())
    assert len(parameters) == 116
    for i, name in enumerate(sorted(parameters)):
        k = torch.arange(parameters[name].numel(), dtype=torch.float64)
        values = (
            1 + 0.1 * torch.cos(0.21 * k + 0.05 * i)
            if name.endswith("LayerNorm.weight")
            else 0.3 * torch.sin(0.37 * k + 0.11 * i)
        )
        parameters[name].data.copy_(values.view_as(parameters[name]))
    return model


@torch.no_grad()
def test_float64_outputs_equal_the_release_to_ten_digits():
    caps = torch.tensor([[101, 102, 5, 6, 7, 102, 0, 0], [101, 102, 9, 102, 0, 0, 0, 0]])
    vmasks = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    n, f, d = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64) for size in (2, 6, 512)), indexing="ij"
    )
    vfeats = torch.sin(0.3 * n + 0.7 * f + 0.05 * d) * vmasks[..., None]
    model = spec_model()
    out = model(caps=caps, cmasks=caps != 0, vfeats=vfeats, vmasks=vmasks, video_id=["a", "b"])
    dummy_caps = torch.tensor([[101, 102, 0, 102]]).repeat(2, 1)
    dummy_masks = torch.tensor([[False, True, False, True]]).repeat(2, 1)  # the [CLS] key is masked
    ours = {
        "pooled_video": out["pooled_video"][:, :3],
        "pooled_text": out["pooled_text"][:, :3],
        "video_outputs": out["video_outputs"][0, 1, :3],
        "text_outputs": out["text_outputs"][1, 2, :3],
        "scores": out["pooled_text"] @ out["pooled_video"].T,
        "dummy_text": model.forward_video(vfeats, vmasks, dummy_caps, dummy_masks)[0][:, :3],
    }
    for name, expected in SPEC_NUMBERS.items():
        # Got 5e-11.
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-9, err_msg=name)
