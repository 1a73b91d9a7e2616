"""S3D with weights by formula against outputs, names and shapes of the released network."""

from functools import partial

import numpy as np
import pytest
import torch

from mmpt.media.s3d import S3D
from tests.support.formula import fill_by_formula, formula_order, hash01
from tests.support.recorded import arrays, record

SHAPES = {"x0": (2, 3, 16, 64, 64), "x1": (1, 3, 30, 32, 48)}
STAGES = ("conv1", "conv_2c", "maxpool_3a", "mixed_3c", "mixed_4f", "mixed_5c")


MAX_ERROR = {"sin": 5e-6, "hash2": 1e-2}
"""Kind of weights -> largest error in float32, relative to the largest output.

Measured 5.7e-7 (sin). With hash2, activations grow, and rounding errors with them: measured 8.4e-4
on an AMD EPYC and 3.0e-3 on an Intel Xeon with AVX-512. In float64 both kinds agree to 6e-14.
"""

by_kind = pytest.mark.parametrize("kind", ["sin", "hash2"])


@pytest.fixture(scope="module")
def golden():
    return arrays("s3d")


@pytest.fixture(scope="module")
def networks(golden) -> dict[str, S3D]:
    words = golden["words"].tolist()
    return {kind: fill_by_formula(S3D(words).eval(), kind) for kind in ("sin", "hash2")}


def clips(kind: str, name: str) -> torch.Tensor:
    shape = SHAPES[name]
    i = np.arange(np.prod(shape), dtype=np.uint64)
    if kind == "sin":
        values = 0.5 + 0.5 * np.sin(0.37 * i + 1300)
    else:
        values = hash01(i, 1000 + int(name[1]))
    values = values.reshape(shape).astype(np.float32)
    return torch.from_numpy(values)


def test_state_dict_has_the_released_names_shapes_types_and_order(networks):
    network = networks["sin"]
    ours = []
    for name, value in network.state_dict().items():
        dtype = str(value.dtype).removeprefix("torch.")
        ours.append([name, list(value.shape), dtype])
    assert len(ours) == 537
    assert sorted(ours) == sorted(record("s3d_statedict"))
    assert formula_order(network) == record("s3d_formula_order")
    assert sum(p.numel() for p in network.parameters()) == 31_211_336
    assert sum(p.numel() for p in S3D().parameters()) == 9_670_800


@pytest.mark.parametrize("name", ["x0", "x1"])
@by_kind
@torch.no_grad()
def test_outputs_of_every_stage_equal_the_release(kind, name, networks, golden):
    network = networks[kind]
    seen = {}
    hooks = []
    for stage in STAGES:
        module = network.get_submodule(stage)
        keep = partial(
            lambda stage, _module, _args, output: seen.update({stage: output}), stage
        )
        hooks.append(module.register_forward_hook(keep))
    out = network(clips(kind, name))
    for hook in hooks:
        hook.remove()
    prefix = f"{kind}_{name}"
    for stage, output in seen.items():
        expected_shape = golden[f"{prefix}_stage_{stage}_shape"]
        expected_mean = golden[f"{prefix}_stage_{stage}_meanabs"]
        assert list(output.shape) == expected_shape.tolist()
        np.testing.assert_allclose(output.abs().mean(), expected_mean, rtol=1e-3)
    assert list(seen) == list(STAGES)
    for key in ("video_embedding", "mixed_5c"):
        expected = golden[f"{prefix}_{key}"]
        difference = out[key].numpy() - expected
        error = np.abs(difference).max() / np.abs(expected).max()
        assert error < MAX_ERROR[kind], (key, error)


@pytest.mark.slow
@by_kind
@torch.no_grad()
def test_in_float64_the_embedding_equals_the_release_to_rounding(
    kind, networks, golden
):
    network = networks[kind].double()
    try:
        for name in SHAPES:
            out = network(clips(kind, name).double())["video_embedding"]
            # Measured 6e-14.
            np.testing.assert_allclose(
                out, golden[f"{kind}_{name}_video_embedding_f64"], rtol=1e-6
            )
    finally:
        network.float()


@by_kind
@torch.no_grad()
def test_text_tower_equals_the_release(kind, networks, golden):
    sentences = golden["sentences"].tolist()
    np.testing.assert_array_equal(
        networks[kind].tokenise(sentences), golden["token_ids"]
    )
    out = networks[kind].forward_text(sentences)["text_embedding"]
    # Measured 1.4e-6.
    np.testing.assert_allclose(out, golden[f"{kind}_text_embedding"], rtol=0, atol=1e-5)
