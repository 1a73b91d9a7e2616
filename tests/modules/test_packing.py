"""Packing against loops over sequences, and the attention function against BERT run on one sequence at a time."""

import pytest
import torch
from transformers import BertConfig, BertModel

from mmpt.modules import PACKED, run_packed
from mmpt.modules.packing import Run, plan_packing

MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()


def test_tokens_lie_sequence_by_sequence_in_order_of_length() -> None:
    packing = plan_packing(MASK)
    tokens = [(n, p) for n in (2, 0, 1, 4) for p in range(5) if MASK[n, p]]
    assert packing.positions.tolist() == [n * 5 + p for n, p in tokens]
    assert packing.runs == (Run(1, 1), Run(2, 3), Run(1, 5))


def test_unpacking_undoes_packing_and_leaves_zeros() -> None:
    values = torch.randn(5, 5, 3, generator=torch.Generator().manual_seed(0))
    packing = plan_packing(MASK)
    assert torch.equal(packing.unpack(packing.pack(values)), values * MASK[..., None])


@pytest.mark.parametrize("training", [False, True])
def test_every_sequence_is_computed_as_if_it_were_alone(training: bool) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=50, **sizes, **no_dropout, attn_implementation=PACKED)
    bert = BertModel(config).double().train(training)
    mask = MASK[[0, 1, 2, 4]]
    ids = torch.randint(0, 50, mask.shape)
    positions = torch.arange(5).expand_as(mask)
    states = run_packed(bert, mask, positions, input_ids=ids)
    for row in range(len(mask)):
        real = mask[row]
        alone = bert(input_ids=ids[row, real][None], position_ids=positions[row, real][None]).last_hidden_state[0]
        torch.testing.assert_close(states[row, real], alone, rtol=0, atol=1e-13)  # measured 9e-16
        assert not states[row, ~real].any()


def test_attention_dropout_is_active_in_training() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5, attn_implementation=PACKED,
    )  # fmt: skip
    bert = BertModel(config)
    inputs = {"input_ids": torch.randint(0, 50, MASK.shape)}
    positions = torch.arange(5).expand_as(MASK)
    first, second = (run_packed(bert.train(), MASK, positions, **inputs) for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (run_packed(bert.eval(), MASK, positions, **inputs) for _ in range(2))
    assert torch.equal(first, second)
