"""Compiled layers against eager ones over a few updates.

The number of compilations and a machine without a compiler are tested too.
"""

import copy

import pytest
import torch
from torch._dynamo import config as dynamo
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from mmpt.errors import ConfigError
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.models.compilation import compile_layers
from mmpt.modules import chunks
from tests.support.towers import draw, towers

pytestmark = pytest.mark.spawn  # the compiler works in processes

CPU = torch.device("cpu")


def updates(
    model: MMFusionSeparate, seeds: range
) -> tuple[list[float], list[torch.Tensor]]:
    """Trains on one batch for each seed. The batches have different sizes.

    Returns:
        The losses of all batches, and the gradients of the last one.
    """
    loss = MMContraLoss(MMContraLoss.Config())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for seed in seeds:
        optimizer.zero_grad()
        total = loss(**model(**draw(20 + seed, seed, torch.float64))).total
        total.backward()
        optimizer.step()
        losses.append(total.item())
    return losses, [
        each.grad.clone() for each in model.parameters() if each.grad is not None
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_compiled_training_equals_eager_training_and_compiles_once(
    packed: bool,
) -> None:
    # The sizes of the heads must differ from all numbers of positions. Otherwise torch would assume
    # that the two are always the same.
    eager = towers(packed=packed, num_attention_heads=2).double()
    compiled = copy.deepcopy(eager)
    torch.compiler.reset()
    counters.clear()
    assert compile_layers(compiled, CPU) == 3 * (2 + 3)
    assert list(compiled.state_dict()) == list(eager.state_dict())
    wanted, wanted_gradients = updates(eager, range(6))
    first, _ = updates(compiled, range(1))
    graphs = counters["stats"]["unique_graphs"]
    # One graph is from the trial. The others are for three parts, which all layers share.
    assert graphs == 1 + 3
    with dynamo.patch(error_on_recompile=True):
        rest, gradients = updates(compiled, range(1, 6))
    assert counters["stats"]["unique_graphs"] == graphs
    assert first + rest == pytest.approx(wanted, rel=1e-12)  # measured 1e-15
    torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-9, atol=1e-12)
    eager.load_state_dict(compiled.state_dict())


def test_dropout_is_repeatable_when_chunks_are_recomputed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = towers(dropout=0.1, training=7).double()
    compile_layers(model, CPU)
    start = copy.deepcopy(model.state_dict())
    results = []
    for seed, run in (
        (5, chunks.checkpoint),
        (5, lambda run_rows, *inputs, use_reentrant: run_rows(*inputs)),
        (6, chunks.checkpoint),
    ):
        monkeypatch.setattr(chunks, "checkpoint", run)
        model.load_state_dict(start)
        torch.manual_seed(seed)
        results.append(updates(model, range(1)))
    assert results[0][0] == results[1][0] != results[2][0]
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-9, atol=1e-12)


@inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
def test_a_missing_compiler_is_reported() -> None:
    torch.compiler.reset()  # forgets earlier compilations
    begin = r"`model.compile: true` needs a C\+\+ compiler [^\n]*, but torch cannot compile here: "
    with pytest.raises(
        ConfigError,
        match=begin + r"[^\n]*no-such-compiler[^\n]* leave the key out[^\n]*$",
    ):
        compile_layers(towers(), CPU)


def test_a_model_without_bert_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="needs a model of BERT layers, but Linear has none"
    ):
        compile_layers(torch.nn.Linear(2, 2), CPU)
