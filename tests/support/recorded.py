"""Numbers recorded from the original software, and tiny models with weights by formula."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.models import MMFusionSeparate
from tests.support.formula import fill_by_formula
from tests.support.paths import GOLDEN
from tests.support.tiny_bert import tiny_bert_config

INPUTS = ("caps", "cmasks", "vfeats", "vmasks")
by_kind = pytest.mark.parametrize("kind", ["sin", "hash"])


def arrays(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays in golden/`name`.npz."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def record(name: str) -> Any:
    """Returns the content of golden/`name`.json."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def inputs(golden: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Returns the recorded input batch of a model."""
    return {name: torch.from_numpy(golden[name]) for name in INPUTS}


def tiny_towers(
    max_video_len: int,
    kind: str | None = None,
    cls: type[MMFusionSeparate] = MMFusionSeparate,
) -> MMFusionSeparate:
    """Returns a model of the recorded size in eval mode.

    Args:
        kind: formula of the weights. None: random weights.
    """
    model = cls(
        tiny_bert_config(), num_hidden_video_layers=2, max_video_len=max_video_len
    ).eval()
    return fill_by_formula(model, kind) if kind else model


def assert_equal(
    ours: Any, golden: dict[str, np.ndarray], prefix: str, names: Any
) -> None:
    """Asserts that tensors equal the recorded tensors `prefix`/name in dtype and values."""
    for name in names:
        wanted, found = golden[f"{prefix}/{name}"], ours[name].numpy()
        assert found.dtype == wanted.dtype, f"{prefix}/{name}"
        np.testing.assert_array_equal(found, wanted, err_msg=f"{prefix}/{name}")
