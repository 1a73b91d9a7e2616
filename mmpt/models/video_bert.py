"""The video tower: transformers' `BertModel` on [CLS], one token per second of video, and [SEP].

The tower passes input embeddings, positions and a mask to `BertModel`, which is used unchanged.

Legend: N clips, F seconds, I width of the features, D hidden size, R real seconds of all clips.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import BertConfig, BertModel

from mmpt.batch import FEATURE_DIM
from mmpt.errors import DataError
from mmpt.modules import run_packed

NUM_COIN_CLASSES = 779
"""Number of classes in the released checkpoint for COIN: 778 steps, and class 0 for seconds that
belong to no step."""


class VideoTokenMLP(nn.Module):
    """A network that maps features to tokens: Linear, GELU, LayerNorm and Linear.

    The order of the layers, the names of the parameters and the norm's epsilon of 1e-5 are the
    same as in VideoCLIP, so that its checkpoints load.

    Args:
        input_dim: I.
        hidden_size: D.
        initializer_range: standard deviation of the initial weights. Biases start at 0.
    """

    def __init__(
        self, input_dim: int, hidden_size: int, initializer_range: float = 0.02
    ):
        super().__init__()
        self.linear1 = nn.Linear(input_dim, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.linear2 = nn.Linear(hidden_size, hidden_size)
        for linear in (self.linear1, self.linear2):
            nn.init.normal_(linear.weight, std=initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, vfeats: Tensor) -> Tensor:
        """Returns tokens [..., D] for features [..., I].

        Features are cast to the dtype of the weights. (On disk they are float16.)
        """
        features = vfeats.to(self.linear1.weight.dtype)
        hidden = gelu(self.linear1(features))
        return self.linear2(self.LayerNorm(hidden))


class MMBertForEncoder(nn.Module):
    """A VideoTokenMLP followed by BERT.

    State-dict keys are `videomlp.*` and `bert.*`, as in released checkpoints.

    Args:
        config: BERT's config. It may have an additional entry `input_dim`, the width of the
            features. The default is 512, that of S3D.
        max_video_len: largest number of seconds in a clip. [SEP] always has position
            `max_video_len + 1`.
    """

    def __init__(self, config: BertConfig, *, max_video_len: int):
        super().__init__()
        self.input_dim: int = getattr(config, "input_dim", FEATURE_DIM)
        self.max_video_len = max_video_len
        self.videomlp = VideoTokenMLP(
            self.input_dim, config.hidden_size, config.initializer_range
        )
        self.bert = BertModel(config)

    def forward(
        self, ids_N2: Tensor, vfeats_NFI: Tensor, mask: Tensor, *, packed: bool = False
    ) -> Tensor:
        """Returns the last hidden states, float [N, F + 2, D].

        Args:
            ids_N2: int64, the ids of [CLS] and [SEP].
            vfeats_NFI: float, the features.
            mask: bool [N, F + 2], True where a position may be attended to.
            packed: compute only these positions. The states of the others are zero.
        Raises:
            DataError: the features have another width than `input_dim`.
        """
        num_seconds, width = vfeats_NFI.shape[1:]
        if width != self.input_dim:
            raise DataError(
                f"video features must be {self.input_dim} wide, but are {width}; extract them with "
                "the network the model was trained on (S3D gives 512), or set `input_dim` in "
                "config.json of `dataset.bert_name`."
            )
        assert num_seconds <= self.max_video_len, "aligners cut clips"

        # One token per second. With `packed`, the tokens of padded seconds are zero.
        if packed:
            is_real_NF = mask[:, 1:-1]
            real_RI = vfeats_NFI[is_real_NF]
            tokens_RD = self.videomlp(real_RI)
            hidden_size = tokens_RD.shape[1]
            empty_NFD = tokens_RD.new_zeros(*is_real_NF.shape, hidden_size)
            video_NFD = empty_NFD.masked_scatter(is_real_NF[..., None], tokens_RD)
        else:
            video_NFD = self.videomlp(vfeats_NFI)
        words_N2D = self.bert.embeddings.word_embeddings(ids_N2)
        cls_N1D, sep_N1D = words_N2D.split(1, dim=1)
        inputs_embeds = torch.cat([cls_N1D, video_NFD, sep_N1D], dim=1)

        # [SEP] has the same position in clips of every length.
        positions = torch.arange(num_seconds + 2, device=mask.device)
        positions[-1] = self.max_video_len + 1
        if packed:
            position_ids = positions.expand_as(mask)
            return run_packed(
                self.bert, mask, position_ids, inputs_embeds=inputs_embeds
            )
        states = self.bert(
            inputs_embeds=inputs_embeds,
            position_ids=positions[None],
            attention_mask=mask,
        )
        return states.last_hidden_state


class MMBertForTokenClassification(MMBertForEncoder):
    """The video tower with a `classifier` for the steps of COIN.

    `forward` returns the hidden states, as in the base class; the caller applies the classifier to
    them. (The original also has a dropout module, which it never applies.)
    """

    def __init__(self, config: BertConfig, *, max_video_len: int):
        super().__init__(config, max_video_len=max_video_len)
        self.classifier = nn.Linear(config.hidden_size, NUM_COIN_CLASSES)
        nn.init.normal_(self.classifier.weight, std=config.initializer_range)
        nn.init.zeros_(self.classifier.bias)
