"""The token row of the video tower, as the input embeddings and positions that transformers' own
BERT takes.

Legend: N clips, W word ids, F video tokens, D hidden size.
"""

from __future__ import annotations

import torch
from torch import nn


class MMBertEmbeddings(nn.Module):
    """Put video tokens between the first word and the others: `ids[0]` ([CLS]), the video, `ids[1]`
    ([SEP]), ...

    It holds no weights: words come from BERT's own table, and BERT adds position and type and
    normalises.

    Args:
        max_video_len: seconds that the model is made for. The words behind the video take the
            positions from `max_video_len + 1` on, however short the video is, so a [SEP] always
            looks the same.
    """

    def __init__(self, max_video_len: int):
        super().__init__()
        self.max_video_len = max_video_len

    def forward(
        self, words: nn.Embedding, ids_NW: torch.Tensor, video_NFD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `inputs_embeds` [N, W + F, D] and `position_ids` int64 [1, W + F].

        Args:
            words: BERT's word embeddings.
            ids_NW: int64, W >= 1 word ids.
            video_NFD: video tokens, F <= max_video_len.
        """
        num_words, num_tokens = ids_NW.shape[1], video_NFD.shape[1]
        assert num_tokens <= self.max_video_len, (
            f"{num_tokens} video tokens, made for {self.max_video_len}"
        )
        words_NWD = words(ids_NW)
        inputs_embeds = torch.cat([words_NWD[:, :1], video_NFD, words_NWD[:, 1:]], dim=1)
        before = torch.arange(num_tokens + 1, device=ids_NW.device)
        behind = torch.arange(
            self.max_video_len + 1, self.max_video_len + num_words, device=ids_NW.device
        )
        return inputs_embeds, torch.cat([before, behind])[None]

    def extra_repr(self) -> str:
        """Returns what `print(module)` shows in the parentheses."""
        return f"max_video_len={self.max_video_len}"
