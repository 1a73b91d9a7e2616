"""Packing against loops over sequences, and the attention function against BERT run on one sequence at a time."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertConfig, BertModel

from mmpt.modules import PACKED, packing, run_packed
from mmpt.modules.packing import GPU_PADDING, Run, plan_packing

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


def test_cudnn_is_no_choice_while_packed_tokens_attend(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make a plan for every new number of rows."""
    allowed = []

    def attend(*args: Any, **kwargs: Any) -> torch.Tensor:
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return scaled_dot_product_attention(*args, **kwargs)

    monkeypatch.setattr(packing, "scaled_dot_product_attention", attend)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, attn_implementation=PACKED
    )
    run_packed(BertModel(config), MASK, torch.arange(5).expand_as(MASK), input_ids=torch.zeros_like(MASK).long())
    assert allowed == [False] * len(plan_packing(MASK).runs)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


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


def test_dropout_falls_on_packed_tokens_as_often_and_as_hard_as_on_padded_ones() -> None:
    """The draws differ, their distribution does not: means and variances of the states over many copies of a batch."""
    torch.manual_seed(0)
    copies = 2000
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, initializer_range=0.5, attn_implementation=PACKED,
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).train()
    mask = MASK[[0, 1, 2, 4]]
    real = mask.flatten()
    ids = torch.randint(0, 50, mask.shape).repeat(copies, 1)
    masks, positions = mask.repeat(copies, 1), torch.arange(5).expand(len(ids), 5)
    with torch.no_grad():
        states = run_packed(bert, masks, positions, input_ids=ids)
        padded = bert(input_ids=ids, position_ids=positions, attention_mask=masks).last_hidden_state
    ours, theirs = (each.view(copies, -1, 16)[:, real] for each in (states, padded))
    apart = (ours.mean(0) - theirs.mean(0)) / ((ours.var(0) + theirs.var(0)) / copies).sqrt()
    assert 0.8 < float(apart.pow(2).mean()) < 1.25  # 1 if they differ by chance
    torch.testing.assert_close(ours.var(0).mean(1), theirs.var(0).mean(1), rtol=0.1, atol=0)


def test_with_padding_allowed_neighbouring_lengths_share_a_run() -> None:
    assert len(plan_packing(MASK, max_padding=0.15).runs) == 3  # of 12 tokens; computing 1 at 3 pads 2, 3 at 5 pads 4
    packed = plan_packing(MASK, max_padding=0.2)
    assert packed.runs == (Run(3, 3, padded=True), Run(1, 5))
    assert packed.positions.tolist() == [10, 11, 12, 0, 1, 2, 5, 8, 9, 20, 21, 22, 23, 24]
    assert packed.is_real is not None
    assert packed.is_real.tolist() == [True, False, False, *[True] * 11]
    values = torch.randn(5, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(packed.unpack(packed.pack(values)), values * MASK[..., None])
    bias, none = packed.biases(torch.bfloat16)
    assert none is None
    assert bias is not None
    assert bias[:, 0, 0].tolist() == [[0, -torch.inf, -torch.inf], [0, 0, 0], [0, 0, 0]]
    assert bias.dtype == torch.bfloat16
    assert all(stride % 8 == 0 for stride in bias.stride()[:-1]), "a fused kernel would copy it"


class Calls(list):
    """Stands in for the attention function and notes the number of sequences and the length of each call."""

    def __call__(self, query: torch.Tensor, *args: torch.Tensor, **options: object) -> torch.Tensor:
        self.append((query.shape[0], query.shape[2]))
        return scaled_dot_product_attention(query, *args, **options)


def test_shared_runs_give_the_outputs_and_gradients_of_a_run_for_each_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths as the recipe's captions have them, and real tokens that do not stand together."""
    torch.manual_seed(0)
    num, width = 200, 31
    lengths = torch.randint(10, 48, (num, 1)).clamp(max=width)
    mask = torch.arange(width) < lengths
    mask[::3, 1] = False
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation=PACKED,
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).double().train()
    ids, positions = torch.randint(1, 50, mask.shape), torch.arange(width).expand_as(mask)
    weights = torch.randn(num, width, 16, dtype=torch.float64)
    results, calls = [], []
    for share in (0.0, GPU_PADDING):
        monkeypatch.setattr(packing, "plan_packing", partial(plan_packing, max_padding=share))
        monkeypatch.setattr(packing, "scaled_dot_product_attention", noted := Calls())
        bert.zero_grad()
        states = run_packed(bert, mask, positions, input_ids=ids)
        (states * weights).sum().backward()
        results.append((states, {name: parameter.grad.clone() for name, parameter in bert.named_parameters()}))
        calls.append(noted)
    (exact, exact_gradients), (shared, shared_gradients) = results
    torch.testing.assert_close(shared, exact, rtol=0, atol=1e-13)  # measured 4e-15
    for name, gradient in exact_gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, rtol=1e-10, atol=1e-11, msg=name)
    tokens = [sum(rows * length for rows, length in noted) for noted in calls]
    assert tokens[0] == 2 * int(mask.sum())
    assert tokens[1] <= (1 + GPU_PADDING) * tokens[0]
    assert len(calls[0]) == 2 * len(set(mask.sum(dim=1).tolist()))
    assert len(calls[1]) <= len(calls[0]) / 4


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_host_waits_for_the_lengths_only(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data refuse every operation that needs it, and every one with tensors of another device."""
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        attn_implementation=PACKED,
    )  # fmt: skip
    read = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda counts: read.append(counts.shape) or [1, 1, 0, 2, 0, 1])
    monkeypatch.setattr(packing, "plan_packing", partial(plan_packing, max_padding=share))
    with torch.device("meta"):
        bert, mask, ids = BertModel(config), torch.ones(5, 5, dtype=torch.bool), torch.ones(5, 5, dtype=torch.long)
        states = run_packed(bert, mask, ids, input_ids=ids)
        states.sum().backward()
    assert read == [(6,)]
    assert states.shape == (5, 5, 16)
