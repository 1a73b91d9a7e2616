"""The downstream models against the outputs, names and numbers recorded from the release."""

import json
from pathlib import Path

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
from tests.parity.formula import fill_by_formula

GOLDEN = Path(__file__).parent / "golden"
KINDS = pytest.mark.parametrize("kind", ["sin", "hash"])


def head(cls: type[MMFusionSeparate], kind: str) -> MMFusionSeparate:
    config = BertConfig.from_json_file(GOLDEN / "tinybert_config.json")
    return fill_by_formula(cls(config, num_hidden_video_layers=2, max_video_len=8).eval(), kind)


def batch_of(arrays, *, add_axis: bool = False) -> dict[str, torch.Tensor]:
    batch = {
        name: torch.from_numpy(arrays[name]) for name in ("caps", "cmasks", "vfeats", "vmasks")
    }
    return {name: value[None] for name, value in batch.items()} if add_axis else batch


@KINDS
@torch.no_grad()
def test_windows_and_captions_of_a_whole_video_equal_the_release(kind):
    golden = np.load(GOLDEN / "model_fullvideo_bg.npz")
    out = head(MMFusionSeparateFullVideoBGRetrieval, kind)(**batch_of(golden), video_id=["a"])
    for name in ("pooled_video", "pooled_text"):
        # Got 4e-6.
        np.testing.assert_allclose(
            out[name], golden[f"{kind}_{name}"], rtol=0, atol=1e-5, err_msg=name
        )


@KINDS
@torch.no_grad()
def test_step_logits_of_every_second_equal_the_release(kind):
    golden = np.load(GOLDEN / "model_actionseg.npz")
    logits = head(MMFusionSeparateActionSegmentation, kind)(**batch_of(golden))["logits"]
    assert logits.shape == (3, 8, 779)
    # Got 4e-6.
    np.testing.assert_allclose(
        logits[..., :40], golden[f"{kind}_logits_first40"], rtol=0, atol=1e-5
    )
    np.testing.assert_array_equal(logits.argmax(-1), golden[f"{kind}_argmax"])


@KINDS
@torch.no_grad()
def test_seconds_against_steps_equal_the_release(kind):
    golden = np.load(GOLDEN / "model_action_localization.npz")
    logits = head(MMFusionSeparateActionLocalization, kind)(**batch_of(golden, add_axis=True))[
        "logits"
    ]
    assert len(logits) == golden["vmasks"].sum()
    np.testing.assert_allclose(logits, golden[f"{kind}_sep_logits"], rtol=0, atol=1e-4)  # got 2e-5


def listing(name: str) -> list[tuple[str, list[int]]]:
    rows = json.loads((GOLDEN / name).read_text())
    return [(key, shape) for key, shape, _ in rows if not key.endswith("position_ids")]


def test_step_classifier_has_the_released_names_shapes_and_order():
    tiny = head(MMFusionSeparateActionSegmentation, "sin").state_dict()
    assert [(name, list(value.shape)) for name, value in tiny.items()] == listing(
        "model_actionseg_tiny_statedict.json"
    )
    with torch.device("meta"):
        full = MMFusionSeparateActionSegmentation(
            BertConfig(), num_hidden_video_layers=6, max_video_len=32
        )
    ours = [(name, list(value.shape)) for name, value in full.state_dict().items()]
    assert ours == listing("model_actionseg_full_statedict.json")


@pytest.mark.parametrize(
    "cls", [MMFusionSeparateFullVideoBGRetrieval, MMFusionSeparateActionLocalization]
)
def test_heads_without_weights_of_their_own_have_the_keys_of_the_two_towers(cls):
    assert MODELS.get(cls.__name__, "model.model_cls") is cls
    assert list(head(cls, "sin").state_dict()) == list(head(MMFusionSeparate, "sin").state_dict())
