"""Packed tokens against BERT run on one sequence at a time, and the choice of groups."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertConfig, BertModel

from mmpt.modules import PACKED, packing, run_packed
from mmpt.modules.packing import choose_group_lengths, plan_packing

MASK = torch.tensor(
    [
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 1],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1],
    ]
).bool()


def bert(num_layers: int = 1, dropout: float = 0.0, **settings: Any) -> BertModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    dropouts = dict.fromkeys(
        ("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout
    )
    config = BertConfig(
        vocab_size=50,
        num_hidden_layers=num_layers,
        attn_implementation=PACKED,
        **(sizes | dropouts | settings),
    )
    return BertModel(config)


def run(
    tower: BertModel,
    mask: torch.Tensor,
    positions: torch.Tensor,
    ids: torch.Tensor,
    padding: int,
) -> torch.Tensor:
    """Computes the same as `run_packed`, with at most `padding` padded tokens in a group."""
    packing = plan_packing(mask, padding)
    output = tower(
        input_ids=packing.pack(ids)[None],
        position_ids=packing.pack(positions)[None],
        groups=packing.groups,
    )
    return packing.unpack(output.last_hidden_state[0])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 100])
def test_packed_states_equal_the_states_of_single_sequences(
    training: bool, padding: int
) -> None:
    tower = bert(num_layers=2).double().train(training)
    mask = MASK
    ids = torch.randint(0, 50, mask.shape)
    positions = torch.arange(5).expand_as(mask)
    states = run(tower, mask, positions, ids, padding)
    assert not states[3].any()  # the sequence without a token
    for row in (0, 1, 2, 4):
        real = mask[row]
        own_ids = ids[row, real]
        own_positions = positions[row, real]
        output = tower(input_ids=own_ids[None], position_ids=own_positions[None])
        alone = output.last_hidden_state[0]
        # Measured 9e-16.
        torch.testing.assert_close(states[row, real], alone, rtol=0, atol=1e-13)
        assert not states[row, ~real].any()


def test_padding_has_no_influence_and_no_gradient() -> None:
    ids = torch.randint(0, 50, MASK.shape)
    others = torch.where(MASK, ids, torch.randint(0, 50, MASK.shape))
    assert not torch.equal(ids, others)
    positions = torch.arange(5).expand_as(MASK)
    results = []
    for each in (ids, others):
        tower = bert()
        states = run(tower, MASK, positions, each, 100)
        states.pow(2).sum().backward()
        gradients = {name: value.grad for name, value in tower.named_parameters()}
        results.append((states, gradients))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=12),
    max_padding=st.integers(0, 60),
)
def test_groups_are_as_large_as_the_padding_limit_allows(
    counts: list[int], max_padding: int
) -> None:
    borders = [0, *choose_group_lengths(counts, max_padding)]
    assert borders == sorted(set(borders))
    lengths: list[int] = []
    for length, count in enumerate(counts):
        if length > 0:
            lengths += [length] * count
    assert borders[-1] == max(lengths, default=0)
    for shorter, length in pairwise(borders):
        inside = [each for each in lengths if shorter < each <= length]
        assert length in inside
        padding = sum(length - each for each in inside)
        assert padding <= max_padding
        # With the next shorter length, the padding would exceed the limit.
        if shorter > 0:
            padding += counts[shorter] * (length - shorter)
            assert padding > max_padding


def test_cudnn_attention_is_disabled_for_packed_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cuDNN would build a plan for every new number of sequences."""
    allowed = []

    def attend(*args: Any, **kwargs: Any) -> torch.Tensor:
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return scaled_dot_product_attention(*args, **kwargs)

    monkeypatch.setattr(packing, "scaled_dot_product_attention", attend)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    positions = torch.arange(5).expand_as(MASK)
    run_packed(bert(), MASK, positions, input_ids=torch.zeros_like(positions))
    assert allowed == [False]  # one group
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def test_dropout_has_the_same_distribution_with_and_without_packing() -> None:
    """The masks differ, but their distribution does not.

    Compares means and variances of the states over many copies of a batch.
    """
    copies = 2000
    tower = bert(
        num_layers=2,
        dropout=0.1,
        attention_probs_dropout_prob=0.5,
        initializer_range=0.5,
    ).train()
    mask = MASK[[0, 1, 2, 4]]
    masks = mask.repeat(copies, 1)
    ids = torch.randint(0, 50, mask.shape).repeat(copies, 1)
    positions = torch.arange(5).expand_as(ids)
    with torch.no_grad():
        packed = run_packed(tower, masks, positions, input_ids=ids)
        padded = tower(input_ids=ids, position_ids=positions, attention_mask=masks)

    # The states of real tokens, [copies, tokens, D].
    ours = packed[masks].view(copies, -1, 16)
    theirs = padded.last_hidden_state[masks].view(copies, -1, 16)
    our_variance = ours.var(0)
    their_variance = theirs.var(0)
    difference = ours.mean(0) - theirs.mean(0)
    expected_variance = (our_variance + their_variance) / copies
    apart = difference.pow(2) / expected_variance
    assert 0.8 < float(apart.mean()) < 1.25  # 1 if they differ only by chance
    torch.testing.assert_close(
        our_variance.mean(1), their_variance.mean(1), rtol=0.1, atol=0
    )


def test_packing_waits_for_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on the meta device, where every operation fails that needs data on the host."""
    read = []
    monkeypatch.setattr(
        torch.Tensor,
        "tolist",
        lambda counts: read.append(counts.shape) or [1, 1, 0, 2, 0, 1],
    )
    with torch.device("meta"):
        ids = torch.ones(5, 5, dtype=torch.long)
        states = run_packed(bert(), ids.bool(), ids, input_ids=ids)
        states.sum().backward()
    assert read == [(6,)]
    assert states.shape == (5, 5, 16)
