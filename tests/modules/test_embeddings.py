"""The video tower's token row and positions, by hand."""

import pytest
import torch
from torch import nn

from mmpt.modules import MMBertEmbeddings


@pytest.mark.parametrize(
    ("num_seconds", "num_words", "expected"),
    [
        (6, 2, [0, 1, 2, 3, 4, 5, 6, 7]),
        (4, 2, [0, 1, 2, 3, 4, 7]),
        (0, 2, [0, 7]),
        (2, 4, [0, 1, 2, 7, 8, 9]),
    ],
)
def test_words_behind_the_video_keep_their_positions(num_seconds, num_words, expected):
    words = nn.Embedding(10, 3)
    ids = torch.arange(num_words)[None].repeat(2, 1)
    video = torch.randn(2, num_seconds, 3)
    embeds, positions = MMBertEmbeddings(max_video_len=6)(words, ids, video)
    assert positions.tolist() == [expected]
    assert torch.equal(embeds[:, 0], words.weight[0].expand(2, 3))
    assert torch.equal(embeds[:, 1 : num_seconds + 1], video)
    assert torch.equal(embeds[1, num_seconds + 1 :], words.weight[1:num_words])


def test_it_holds_no_weights_and_refuses_too_many_seconds():
    embeddings = MMBertEmbeddings(max_video_len=2)
    assert not embeddings.state_dict()
    with pytest.raises(AssertionError, match="3 video tokens"):
        embeddings(nn.Embedding(10, 3), torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 3, 3))
