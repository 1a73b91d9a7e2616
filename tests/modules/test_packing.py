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
    [[1, 1, 1, 0, 0], [1, 0, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
).bool()


def bert(num_layers: int = 1, dropout: float = 0.0, **settings: Any) -> BertModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    dropouts = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)
    config = BertConfig(
        vocab_size=50,
        num_hidden_layers=num_layers,
        attn_implementation=PACKED,
        **(sizes | dropouts | settings),
    )
    return BertModel(config)


def run(
    tower: BertModel, mask: torch.Tensor, positions: torch.Tensor, ids: torch.Tensor, padding: int
) -> torch.Tensor:
    """Does the same as `run_packed`, with at most `padding` padded tokens in a group."""
    packing = plan_packing(mask, padding)
    packed = {"input_ids": packing.pack(ids)[None], "position_ids": packing.pack(positions)[None]}
    return packing.unpack(tower(**packed, groups=packing.groups).last_hidden_state[0])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 100])
def test_packed_states_equal_those_of_single_sequences(training: bool, padding: int) -> None:
    tower = bert(num_layers=2).double().train(training)
    mask = MASK
    ids = torch.randint(0, 50, mask.shape)
    positions = torch.arange(5).expand_as(mask)
    states = run(tower, mask, positions, ids, padding)
    assert not states[3].any()  # the sequence without a token
    for row in (0, 1, 2, 4):
        real = mask[row]
        inputs = {"input_ids": ids[row, real][None], "position_ids": positions[row, real][None]}
        alone = tower(**inputs).last_hidden_state[0]
        torch.testing.assert_close(states[row, real], alone, rtol=0, atol=1e-13)  # measured 9e-16
        assert not states[row, ~real].any()


def test_padding_has_no_influence_and_no_gradient() -> None:
    tower = bert()
    ids = torch.randint(0, 50, MASK.shape)
    positions = torch.arange(5).expand_as(MASK)
    run(tower, MASK, positions, ids, 100).pow(2).sum().backward()
    wanted = {name: value.grad for name, value in tower.named_parameters()}
    tower.zero_grad()
    others = torch.where(MASK, ids, torch.randint(0, 50, MASK.shape))
    run(tower, MASK, positions, others, 100).pow(2).sum().backward()
    for name, value in tower.named_parameters():
        torch.testing.assert_close(value.grad, wanted[name], rtol=0, atol=0)


@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=12), max_padding=st.integers(0, 60))
def test_groups_are_as_large_as_the_padding_limit_allows(
    counts: list[int], max_padding: int
) -> None:
    longest = choose_group_lengths(counts, max_padding)
    assert longest == sorted(set(longest))
    lengths = [length for length, count in enumerate(counts) for _ in range(count) if length]
    assert (longest[-1:] or [0]) == [max(lengths, default=0)]
    for shorter, length in pairwise([0, *longest]):
        inside = [each for each in lengths if shorter < each <= length]
        assert length in inside
        assert sum(length - each for each in inside) <= max_padding
        # With the next shorter length, the padding would exceed the limit.
        with_next = [each for each in lengths if each == shorter] + inside
        if shorter:
            assert sum(length - each for each in with_next) > max_padding


def test_cudnn_attention_is_disabled_for_packed_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
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
    more = {"attention_probs_dropout_prob": 0.5, "initializer_range": 0.5}
    tower = bert(num_layers=2, dropout=0.1, **more).train()
    mask = MASK[[0, 1, 2, 4]]
    real = mask.flatten()
    ids = torch.randint(0, 50, mask.shape).repeat(copies, 1)
    masks, positions = mask.repeat(copies, 1), torch.arange(5).expand(len(ids), 5)
    with torch.no_grad():
        states = run_packed(tower, masks, positions, input_ids=ids)
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": masks}
        padded = tower(**inputs).last_hidden_state
    ours, theirs = (each.view(copies, -1, 16)[:, real] for each in (states, padded))
    apart = (ours.mean(0) - theirs.mean(0)) / ((ours.var(0) + theirs.var(0)) / copies).sqrt()
    assert 0.8 < float(apart.pow(2).mean()) < 1.25  # 1 if they differ only by chance
    torch.testing.assert_close(ours.var(0).mean(1), theirs.var(0).mean(1), rtol=0.1, atol=0)


def test_packing_waits_for_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on the meta device, where every operation fails that needs data on the host."""
    read = []
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda counts: read.append(counts.shape) or [1, 1, 0, 2, 0, 1]
    )
    with torch.device("meta"):
        ids = torch.ones(5, 5, dtype=torch.long)
        states = run_packed(bert(), ids.bool(), ids, input_ids=ids)
        states.sum().backward()
    assert read == [(6,)]
    assert states.shape == (5, 5, 16)
