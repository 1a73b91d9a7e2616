"""Memory of the towers: tensors that are stored for backward, and computation in chunks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmpt.modules import run_packed
from mmpt.tasks.task import freeze_all_but_layernorm
from tests.support.towers import SLOTS, assert_same, draw, outputs_and_gradients, towers

WIDTH, HEADS, LAYERS = 32, 4, 3


def saved_bytes(model: torch.nn.Module, run: Callable[[], torch.Tensor]) -> int:
    """Returns the bytes that a forward pass stores for backward.

    Each storage counts once. Parameters do not count.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("layernorm_only", [True, False])
def test_a_frozen_layer_stores_no_activations_for_its_weights(
    layernorm_only: bool,
) -> None:
    """For backward, a layer stores 10 D values per token: query, key, value and output of
    attention, the inputs of GELU (4 D) and of two norms.

    A layer with trainable weights also stores the inputs of their products: 7 D more.
    """
    model, clips = towers(std=0.3, intermediate_size=4 * WIDTH), draw(16)
    if layernorm_only:
        freeze_all_but_layernorm(model)
    # No padding, because it would be stored too.
    mask = torch.ones_like(clips["cmasks"])
    positions = torch.arange(SLOTS).expand_as(mask)
    found = saved_bytes(
        model,
        lambda: run_packed(
            model.text_encoder, mask, positions, input_ids=clips["caps"]
        ),
    )
    tokens = int(mask.sum())
    # The log-sum-exp of each head, and mean and deviation of the norms.
    layer = (10 if layernorm_only else 17) * WIDTH + HEADS + 4
    # int64: positions for unpacking, and the ids and positions of the embeddings.
    indices = 8 if layernorm_only else 32
    # The input of BERT's pooler, whose weights are trainable although nothing reads its output.
    last = 0 if layernorm_only else WIDTH
    expected = tokens * (4 * (LAYERS * layer + WIDTH + 2 + last) + indices)
    # Measured 783,680 of 783,360 and 1,328,960 of 1,328,640.
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layernorm_only", [True, False])
def test_chunks_give_the_outputs_and_gradients_of_one_pass(
    packed: bool, layernorm_only: bool
) -> None:
    results = []
    for chunk in (4, False):
        model = towers(std=0.3, packed=packed, training=chunk).double()
        if layernorm_only:
            freeze_all_but_layernorm(model)
        results.append(outputs_and_gradients(model, draw(19, dtype=torch.float64)))
    assert_same(*results, atol=1e-12)  # measured 2e-14


def test_training_and_inference_have_separate_chunk_sizes() -> None:
    model, clips = towers(std=0.3, packed=False, training=8), draw(19)
    rows: list[int] = []

    def note(_module: torch.nn.Module, _args: Any, inputs: dict[str, Any]) -> None:
        rows.append(len(inputs["input_ids"]))
        if rows[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.text_encoder.register_forward_pre_hook(note, with_kwargs=True)
    model(**clips)
    with torch.no_grad():
        parts = model.eval()(**clips)
    assert rows == [8, 8, 3, 19, 9, 4, 4, 4, 4, 3]
    whole = towers(std=0.3, packed=False).eval()(**clips)
    torch.testing.assert_close(parts, dict(whole), rtol=0, atol=1e-5)  # measured 1e-6


@pytest.mark.gpu
def test_chunks_save_memory_on_a_gpu() -> None:
    """Memory is needed for the activations of a chunk and the states of all clips."""
    clips = {name: value.cuda() for name, value in draw(512).items()}
    peaks = []
    for chunk in (False, 16):
        model = towers(training=chunk).cuda()
        for _ in range(2):  # the first step allocates workspaces
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            output = model(**clips)
            (output["video_outputs"].sum() + output["text_outputs"].sum()).backward()
            del output
            model.zero_grad()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < peaks[0] / 2
