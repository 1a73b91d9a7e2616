"""The video tower: transformers' own `BertModel` reads [CLS], one token per second of video, [SEP].

Nothing of BERT is written again: the tower hands it input embeddings, explicit positions and a
mask.
Legend: N clips, F seconds, I width of the features, D hidden size.
"""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from mmpt.batch import FEATURE_DIM
from mmpt.errors import DataError
from mmpt.modules import VideoTokenMLP, run_packed

NUM_COIN_CLASSES = 779
"""The 778 steps of COIN, and class 0 for seconds that belong to none; part of the released
checkpoint's shape.
"""


class MMBertForEncoder(nn.Module):
    """VideoTokenMLP and BERT. State keys are `videomlp.*` and `bert.*`, as in released checkpoints.

    Args:
        config: of BERT; an extra entry `input_dim` is the width of the features (else 512, S3D).
        max_video_len: most seconds of a clip; [SEP] stands at position `max_video_len + 1`.
    """

    def __init__(self, config: BertConfig, *, max_video_len: int):
        super().__init__()
        self.input_dim: int = getattr(config, "input_dim", FEATURE_DIM)
        self.max_video_len = max_video_len
        self.videomlp = VideoTokenMLP(self.input_dim, config.hidden_size, config.initializer_range)
        self.bert = BertModel(config)

    def forward(
        self, ids_N2: Tensor, vfeats_NFI: Tensor, mask: Tensor, *, packed: bool = False
    ) -> Tensor:
        """Returns the last hidden states [N, F + 2, D].

        Args:
            ids_N2: int64, [CLS] and [SEP].
            vfeats_NFI: float features.
            mask: bool [N, F + 2], True where a position may be attended to.
            packed: compute these positions only; the states of the others are zero.
        Raises:
            DataError: features of another width.
        """
        num_seconds, width = vfeats_NFI.shape[1:]
        if width != self.input_dim:
            raise DataError(
                f"video features must be {self.input_dim} wide, but are {width}; extract them with "
                "the network the model was trained on (S3D gives 512), or set `input_dim` in "
                "config.json of `dataset.bert_name`."
            )
        assert num_seconds <= self.max_video_len, "aligners cut clips"
        seconds_NF = mask[:, 1:-1]
        if packed:  # the tokens of padded seconds are not computed
            tokens_RD = self.videomlp(vfeats_NFI[seconds_NF])
            video_NFD = tokens_RD.new_zeros(*seconds_NF.shape, tokens_RD.shape[1])
            video_NFD = video_NFD.masked_scatter(seconds_NF[..., None], tokens_RD)
        else:
            video_NFD = self.videomlp(vfeats_NFI)
        words_N2D = self.bert.embeddings.word_embeddings(ids_N2)
        inputs_embeds = torch.cat([words_N2D[:, :1], video_NFD, words_N2D[:, 1:]], dim=1)
        positions = torch.arange(num_seconds + 2, device=mask.device)
        positions[-1] = self.max_video_len + 1  # [SEP], however short the video is
        if packed:
            return run_packed(
                self.bert, mask, positions.expand_as(mask), inputs_embeds=inputs_embeds
            )
        states = self.bert(
            inputs_embeds=inputs_embeds, position_ids=positions[None], attention_mask=mask
        )
        return states.last_hidden_state


class MMBertForTokenClassification(MMBertForEncoder):
    """The video tower with a `classifier` of its states into COIN's step classes; it returns the
    states all the same.

    (The original has a dropout module in between, which it never applies.)
    """

    def __init__(self, config: BertConfig, *, max_video_len: int):
        super().__init__(config, max_video_len=max_video_len)
        self.classifier = nn.Linear(config.hidden_size, NUM_COIN_CLASSES)
        nn.init.normal_(self.classifier.weight, std=config.initializer_range)
        nn.init.zeros_(self.classifier.bias)
