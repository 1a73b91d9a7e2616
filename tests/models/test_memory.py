"""Memory of the towers: what is stored for backward, chunks, and a device that is too small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BertConfig

from mmpt.models import MMFusionSeparate
from mmpt.models.freezing import freeze_all_but_layernorm
from mmpt.modules import run_packed
from tests.models.two_towers import outputs_and_gradients

F, T, WIDTH, HEADS, LAYERS = 6, 12, 32, 4, 3


def towers(
    *,
    layernorm_only: bool = True,
    dropout: float = 0.1,
    packed: bool = True,
    training: int | str = "auto",
    inference: int | str = "auto",
) -> MMFusionSeparate:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    model = MMFusionSeparate(config, num_hidden_video_layers=2, max_video_len=F, packed=packed)
    model.set_chunks(training, inference)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if layernorm_only:
        freeze_all_but_layernorm(model)
    return model.train()


def draw(num: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    seconds = torch.randint(1, F + 1, (num, 1), generator=generator)
    slots = torch.randint(4, T + 1, (num, 1), generator=generator)
    return {
        "caps": torch.randint(5, 50, (num, T), generator=generator),
        "cmasks": torch.arange(T) < slots,
        "vfeats": torch.randn(num, F, 512, generator=generator).to(dtype),
        "vmasks": torch.arange(F) < seconds,
    }


def saved_bytes(model: torch.nn.Module, run: Callable[[], torch.Tensor]) -> int:
    """Bytes that a forward pass stores for backward, each storage once, parameters left out."""
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
def test_a_frozen_layer_stores_nothing_for_its_weights(layernorm_only: bool) -> None:
    """A layer needs query, key, value and output of attention, the inputs of GELU and of two norms:
    10 D a token.

    Where its weights train, it needs the inputs of their products too: 7 D more.
    """
    model, clips = towers(layernorm_only=layernorm_only, dropout=0.0), draw(16)
    mask = clips["cmasks"]
    positions = torch.arange(T).expand_as(mask)
    found = saved_bytes(
        model, lambda: run_packed(model.text_encoder, mask, positions, input_ids=clips["caps"])
    )
    tokens = int(mask.sum())
    # Log-sum-exp of each head; mean and deviation of norms.
    layer = (10 if layernorm_only else 17) * WIDTH + HEADS + 4
    # Int64: where tokens go back to; embeddings' ids and positions.
    places = 8 if layernorm_only else 32
    # For BERT's pooler, which has weights that would train if anything read it.
    last = 0 if layernorm_only else WIDTH
    expected = tokens * (4 * (LAYERS * layer + WIDTH + 2 + last) + places)
    # Measured 608,048 of 607,920 and 1,031,208 of 1,031,080.
    assert found == pytest.approx(expected, rel=0.01)


def test_frozen_weights_get_no_gradient() -> None:
    model = towers()
    (model(**draw(8))["pooled_video"] ** 2).sum().backward()
    (model(**draw(8))["pooled_text"] ** 2).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {
        name for name, parameter in model.named_parameters() if parameter.grad is not None
    } == trained
    # Weight and bias; video MLP, embeddings, two a layer.
    assert len(trained) == 2 * (1 + 1 + 2 * 2 + 1 + 2 * LAYERS)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layernorm_only", [True, False])
def test_chunks_give_the_outputs_and_gradients_of_one_pass(
    packed: bool, layernorm_only: bool
) -> None:
    clips = draw(19, dtype=torch.float64)
    results = []
    for chunk in (False, 4):
        model = towers(layernorm_only=layernorm_only, dropout=0.0, packed=packed, training=chunk)
        results.append(outputs_and_gradients(model.double(), clips))
    (whole, whole_gradients), (parts, parts_gradients) = results
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-12)  # measured 2e-14
    assert parts_gradients.keys() == whole_gradients.keys()
    for name, gradient in whole_gradients.items():
        torch.testing.assert_close(
            parts_gradients[name], gradient, rtol=1e-10, atol=1e-10, msg=name
        )


def rows_of(tower: torch.nn.Module) -> list[int]:
    """Return a list to which every call of a padded tower adds its number of clips."""
    rows: list[int] = []

    def note(_module: torch.nn.Module, _args: Any, inputs: dict[str, Any]) -> None:
        rows.append(len(inputs["input_ids"]))

    tower.register_forward_pre_hook(note, with_kwargs=True)
    return rows


def test_chunks_of_training_are_not_those_of_inference() -> None:
    model = towers(packed=False, training=8, inference=10)
    rows, clips = rows_of(model.text_encoder), draw(19)
    model(**clips)
    with torch.no_grad():
        parts = model.eval()(**clips)
    assert rows == [8, 8, 3, 10, 9]
    whole = towers(packed=False).eval()(**clips)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)  # measured 1e-6


def test_inference_halves_by_itself() -> None:
    model, clips = towers(packed=False).eval(), draw(19)
    rows = rows_of(model.text_encoder)

    def refuse(_module: torch.nn.Module, _args: Any, inputs: dict[str, Any]) -> None:
        if len(inputs["input_ids"]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.text_encoder.register_forward_pre_hook(refuse, with_kwargs=True)
    with torch.no_grad():
        parts = model(**clips)
    assert rows == [19, 9, 4, 4, 4, 4, 3]
    for name, value in towers(packed=False).eval()(**clips).items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_chunks_save_memory_on_a_gpu() -> None:
    """Activations of a chunk and states of all clips, instead of all activations."""
    clips = {name: value.cuda() for name, value in draw(512).items()}
    peaks = []
    for chunk in (False, 16):
        model = towers(training=chunk).cuda()
        for _ in range(2):  # the first step makes workspaces
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            output = model(**clips)
            (output["video_outputs"].sum() + output["text_outputs"].sum()).backward()
            del output
            model.zero_grad()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < peaks[0] / 2
