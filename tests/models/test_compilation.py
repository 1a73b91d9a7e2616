"""Compiled layers against eager ones over a few updates, how often they compile, and a machine
without a compiler.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch._dynamo import config as dynamo
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from transformers import BertConfig

from mmpt.config.schema import LossConfig
from mmpt.errors import ConfigError
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.models.compilation import compile_layers
from mmpt.modules import chunks

CPU = torch.device("cpu")
BERT = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def towers(*, packed: bool = True, chunk: int | str = "auto", **changes: float) -> MMFusionSeparate:
    torch.manual_seed(0)
    config = BertConfig(**BERT, **changes)
    model = MMFusionSeparate(config, num_hidden_video_layers=2, max_video_len=6, packed=packed)
    model.set_chunks(chunk)
    return model.double().train()


def batch(seed: int) -> dict[str, torch.Tensor]:
    """Clips whose number, lengths and padding differ from seed to seed."""
    generator = torch.Generator().manual_seed(seed)
    num, slots, seconds = 20 + seed, 8 + seed, 4 + seed % 3
    vmasks = torch.arange(seconds) < torch.randint(1, seconds + 1, (num, 1), generator=generator)
    cmasks = torch.arange(slots) < torch.randint(3, slots + 1, (num, 1), generator=generator)
    caps = torch.randint(0, 120, (num, slots), generator=generator)
    return {
        "caps": caps,
        "cmasks": cmasks,
        "vfeats": torch.randn(num, seconds, 512, generator=generator, dtype=torch.float64),
        "vmasks": vmasks,
    }


def updates(model: MMFusionSeparate, seeds: range) -> tuple[list[float], list[torch.Tensor]]:
    """Train on a batch per seed; return the losses and the last gradients."""
    loss = MMContraLoss(LossConfig(), clip_per_video=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for seed in seeds:
        optimizer.zero_grad()
        total = loss(**model(**batch(seed))).total
        total.backward()
        optimizer.step()
        losses.append(total.item())
    return losses, [each.grad.clone() for each in model.parameters() if each.grad is not None]


@pytest.mark.parametrize("packed", [True, False])
def test_compiled_training_equals_eager_training_and_compiles_once(packed: bool) -> None:
    eager = towers(packed=packed, **NO_DROPOUT)
    compiled = copy.deepcopy(eager)
    torch.compiler.reset()
    counters.clear()
    assert compile_layers(compiled, CPU) == 3 * (2 + 3)
    wanted, wanted_gradients = updates(eager, range(6))
    first, _ = updates(compiled, range(1))
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 1 + 3, (
        "the trial's, and one for each kind of part whatever the layer and tower"
    )
    with dynamo.patch(error_on_recompile=True):
        rest, gradients = updates(compiled, range(1, 6))
    assert counters["stats"]["unique_graphs"] == graphs
    assert first + rest == pytest.approx(wanted, rel=1e-12)  # measured 1e-15
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)  # measured


def test_keys_stay_and_weights_move_between_compiled_and_eager(tmp_path: Path) -> None:
    compiled, eager = towers(), towers()
    keys = list(compiled.state_dict())
    compile_layers(compiled, CPU)
    assert list(compiled.state_dict()) == keys
    torch.save(compiled.state_dict(), tmp_path / "weights.pt")
    eager.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True)
    assert list(copy.deepcopy(compiled).state_dict()) == keys


def test_with_dropout_a_seed_gives_the_same_losses_again() -> None:
    model = towers()
    start = copy.deepcopy(model.state_dict())
    compile_layers(model, CPU)
    runs = []
    for seed in (5, 5, 6):
        model.load_state_dict(start)
        torch.manual_seed(seed)
        runs.append(updates(model, range(2))[0])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_chunks_computed_again_in_backward_meet_the_dropout_that_they_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = towers(chunk=7)
    compile_layers(model, CPU)
    start = copy.deepcopy(model.state_dict())
    results = []
    for run in (chunks.checkpoint, lambda run_rows, *inputs, use_reentrant: run_rows(*inputs)):
        monkeypatch.setattr(chunks, "checkpoint", run)
        model.load_state_dict(start)
        torch.manual_seed(5)
        results.append(updates(model, range(1)))
    (losses, gradients), (wanted, wanted_gradients) = results
    assert losses == wanted
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
def test_without_a_compiler_there_is_one_message() -> None:
    torch.compiler.reset()  # forgets earlier trials
    begin = r"`model.compile: true` needs a C\+\+ compiler, but torch cannot compile here: "
    with pytest.raises(
        ConfigError, match=begin + r"[^\n]*no-such-compiler[^\n]* leave the key out[^\n]*$"
    ):
        compile_layers(towers(), CPU)


def test_a_model_without_bert_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a model of BERT layers, but Linear has none"):
        compile_layers(torch.nn.Linear(2, 2), CPU)
