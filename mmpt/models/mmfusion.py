"""The two-tower model of VideoCLIP and Norton: a video BERT and a text BERT that share no layers.

Legend: N clips, F feature rows, I width of the features, T text slots, D hidden size. Masks are
bool, True = real. A clip's `caps` row is [CLS] [SEP] pieces.. [SEP] [PAD]..: the first [SEP] closes
the video, the second one the text.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from mmpt.batch import ModelOutput
from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import ConfigError
from mmpt.models.bert import (
    MMBertForEncoder,
    find_size_problems,
    read_bert_config,
    read_bert_weights,
)
from mmpt.modules import PACKED, ChunkSize, run_chunks, run_packed
from mmpt.registry import Registry
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
CLIPS_PER_FORWARD = 1024
"""Number of clips that `clips_per_forward: auto` starts with. Larger numbers are no faster."""


def wrong_axes(model: nn.Module, wanted: str, vfeats: Tensor) -> str:
    """Returns the message for a batch that `dataset.aligner` makes for another model."""
    return (
        f"`model.model_cls: {type(model).__name__}` takes {wanted}, but `dataset.aligner` makes "
        f"features of shape {list(vfeats.shape)}. Take aligner and model from one of the shipped "
        "YAMLs."
    )


def masked_mean(hidden_NPD: Tensor, mask_NP: Tensor) -> Tensor:
    """Returns the mean over the positions where the mask is True, [N, D].

    It is computed in the dtype of `hidden_NPD`.

    Args:
        hidden_NPD: float, the states of P positions.
        mask_NP: bool. A row without any True gives NaN.
    """
    is_real_NP = mask_NP.to(hidden_NPD.dtype)
    weights_NP = is_real_NP / is_real_NP.sum(dim=1, keepdim=True)
    return torch.bmm(weights_NP[:, None], hidden_NPD)[:, 0]


def tower_flops(bert: BertModel, lengths: Tensor) -> Tensor:
    """Returns the floating-point operations of a training step, a scalar float64.

    Counts the matrix products of the transformer layers on real tokens, with two operations per
    multiply-add. Embeddings, norms, the loss and recomputed activations are not counted. The figure
    is therefore comparable between implementations.

    Args:
        lengths: integers of any shape, the number of real tokens of each sequence.
    """
    width = bert.config.hidden_size
    inner = bert.config.intermediate_size
    lengths = lengths.double()

    # Each token is multiplied with four matrices of D x D (query, key, value, output of attention)
    # and with two of D x inner size (feed-forward).
    num_weights = 4 * width * width + 2 * width * inner
    weight_flops = 2 * num_weights * lengths.sum()
    # Each pair of tokens takes two products of width D (attention scores, and the sum of values).
    attention_flops = 4 * width * (lengths**2).sum()

    # Backward has two products for each one of forward, or one if the weights are frozen and need
    # no gradient.
    first_attention = bert.encoder.layer[0].attention.self
    is_trained = first_attention.query.weight.requires_grad
    weight_passes = 3 if is_trained else 2
    layer_flops = weight_flops * weight_passes + attention_flops * 3
    return bert.config.num_hidden_layers * layer_flops


class MMFusionSeparate(nn.Module):
    """Two towers whose pooled outputs are compared by a dot product.

    The video tower has the first layers of BERT, the text tower has all of them.

    Args:
        bert_config: configuration of the text tower. The video tower differs only in depth.
        num_hidden_video_layers: layers of the video tower.
        max_video_len: F, the largest number of feature rows of a clip. It fixes the position of the
            video's [SEP].
        packed: compute real tokens only. The states of padding, which nothing reads, are zero.
        checkpoint_activations: number of clips whose activations training keeps at once. The
            backward pass computes them again, chunk by chunk. False keeps the activations of all
            clips. "auto" keeps as many as the device has memory for.
        clips_per_forward: number of clips that a pass without gradient computes at once. "auto" is
            `CLIPS_PER_FORWARD`, and is halved when the device is out of memory.
    """

    video_encoder_cls: ClassVar[type[MMBertForEncoder]] = MMBertForEncoder
    """Class of the video tower. `model.video_encoder_cls` of a YAML, if set, must be its name."""
    outputs: ClassVar[tuple[str, ...]] = tuple(ModelOutput.__annotations__)
    """Names of the values that `forward` returns. A loss lists those that it reads as `inputs`."""

    def __init__(
        self,
        bert_config: BertConfig,
        *,
        num_hidden_video_layers: int,
        max_video_len: int,
        packed: bool = False,
        checkpoint_activations: int | str = "auto",
        clips_per_forward: int | str = "auto",
    ):
        super().__init__()
        self.packed = packed
        # If memory is short, a pass without gradient is retried here with smaller chunks. Training
        # must repeat the whole step instead, so the training loop calls `chunk_in_training.retry`.
        self.chunk_in_training = ChunkSize(
            "model.checkpoint_activations", checkpoint_activations
        )
        self._chunk_in_inference = ChunkSize(
            "clips_per_forward", clips_per_forward, CLIPS_PER_FORWARD
        )
        bert_config = copy.deepcopy(bert_config)
        # `PACKED` treats padded batches as "sdpa" does.
        bert_config._attn_implementation = PACKED
        video_config = copy.deepcopy(bert_config)
        video_config.num_hidden_layers = num_hidden_video_layers
        self.video_encoder = self.video_encoder_cls(
            video_config, max_video_len=max_video_len
        )
        self.text_encoder = BertModel(bert_config)

    @classmethod
    def from_config(
        cls,
        dataset: DatasetConfig,
        model: ModelConfig,
        *,
        pretrained: bool,
        clips_per_forward: int | str = "auto",
    ) -> MMFusionSeparate:
        """Builds the model that a YAML describes.

        Args:
            pretrained: start from BERT's weights. False leaves random weights, for a checkpoint
                that is loaded later.
            clips_per_forward: as in the constructor.
        Raises:
            ConfigError: as `check_config`.
            CheckpointError: BERT cannot be read.
        """
        bert_config = cls.check_config(dataset, model)
        assert dataset.bert_name is not None, "checked by the config"
        assert dataset.max_video_len is not None, "checked by the config"
        assert model.num_hidden_video_layers is not None, "checked above"
        fusion = cls(
            bert_config,
            num_hidden_video_layers=model.num_hidden_video_layers,
            max_video_len=dataset.num_video_slots,
            packed=model.packed,
            checkpoint_activations=model.checkpoint_activations,
            clips_per_forward=clips_per_forward,
        )
        if pretrained:
            bert = read_bert_weights(
                dataset.bert_name, bert_config, random_init=model.random_init
            )
            if bert is not None:
                # The video tower gets BERT's first layers. Its `videomlp` keeps random weights.
                weights = bert.state_dict()
                fusion.text_encoder.load_state_dict(weights)
                video_bert = fusion.video_encoder.bert
                first_layers = {name: weights[name] for name in video_bert.state_dict()}
                video_bert.load_state_dict(first_layers)
                logger.info("both towers start from %s", dataset.bert_name)
        return fusion

    @classmethod
    def check_config(cls, dataset: DatasetConfig, model: ModelConfig) -> BertConfig:
        """Checks that the settings fit the model, BERT and each other. Builds nothing.

        Returns:
            The configuration of `dataset.bert_name`, with `model.input_dim`.
        Raises:
            ConfigError: lists every mistake.
            CheckpointError: BERT cannot be read.
        """
        problems = []
        if model.num_hidden_video_layers is None:
            problems.append("`model.num_hidden_video_layers` must be set, but is not.")
        if model.mm_encoder_cls is not None:
            problems.append(
                f"`model.mm_encoder_cls` must be null, but is `{model.mm_encoder_cls}`: "
                "single-encoder (VLM) models are not part of this framework."
            )
        encoders = {
            "video_encoder_cls": cls.video_encoder_cls,
            "text_encoder_cls": BertModel,
        }
        for key, encoder in encoders.items():
            name = getattr(model, key)
            if name is not None and name != encoder.__name__:
                problems.append(
                    f"`model.{key}` must be `{encoder.__name__}`, but is `{name}`."
                )

        assert dataset.bert_name is not None, "checked by the config"
        bert_config = read_bert_config(dataset.bert_name)
        bert_config.input_dim = model.input_dim
        problems += find_size_problems(bert_config, dataset, model)
        if problems:
            raise ConfigError(cls.__name__, problems)
        return bert_config

    @torch.no_grad()
    def flops(self, cmasks: Tensor, vmasks: Tensor) -> Tensor:
        """Returns the floating-point operations of a training step, as a scalar.

        Args:
            cmasks: bool [..., T].
            vmasks: bool [..., F].
        """
        # Clips also have [CLS] and [SEP]. The text tower leaves out the video's [SEP].
        num_video_tokens = vmasks.sum(-1) + 2
        num_text_tokens = cmasks.sum(-1) - 1
        video_flops = tower_flops(self.video_encoder.bert, num_video_tokens)
        text_flops = tower_flops(self.text_encoder, num_text_tokens)
        return video_flops + text_flops

    def forward_video(
        self,
        vfeats: Tensor,
        vmasks: Tensor,
        caps: Tensor,
        cmasks: Tensor,
        output_hidden_states: bool = False,
    ) -> Any:
        """Embeds clips. The feature rows and the [SEP] are pooled, the [CLS] is not.

        Args:
            vfeats: float [N, F, I].
            vmasks: bool [N, F].
            caps: int64 [N, T]. Only the first two ids are read.
            cmasks: bool [N, T]. The first two say whether [CLS] and [SEP] can be attended to. A
                [SEP] that cannot be attended to is still pooled. Its state is zero if `packed`.
            output_hidden_states: return only the states, also of padding.
        Returns:
            Pooled states [N, D], states [N, F + 2, D] and the mask of pooled positions, bool
            [N, F + 2]. With `output_hidden_states`, only the states.
        """
        cls_attended, sep_attended = cmasks[:, :2].split(1, dim=1)
        attended = torch.cat([cls_attended, vmasks, sep_attended], dim=1)
        clips = caps[:, :2], vfeats, attended
        if output_hidden_states:
            return self._in_chunks(self.video_encoder, *clips)
        encode = partial(self.video_encoder, packed=self.packed)
        states = self._in_chunks(encode, *clips)
        cls_pooled = torch.zeros_like(cls_attended)
        sep_pooled = torch.ones_like(sep_attended)
        pooled_positions = torch.cat([cls_pooled, vmasks, sep_pooled], dim=1)
        return masked_mean(states, pooled_positions), states, pooled_positions

    def forward_text(
        self, caps: Tensor, cmasks: Tensor, output_hidden_states: bool = False
    ) -> Any:
        """Embeds captions. The word pieces and the last [SEP] are pooled, the [CLS] is not.

        Args:
            caps: int64 [N, T]. The video's [SEP] at index 1 is left out.
            cmasks: bool [N, T].
            output_hidden_states: return only the states, also of padding.
        Returns:
            Pooled states [N, D], states [N, T - 1, D] and the mask of pooled positions, bool
            [N, T - 1]. With `output_hidden_states`, only the states.
        """
        cls_attended = cmasks[:, :1]
        words_attended = cmasks[:, 2:]
        ids = torch.cat([caps[:, :1], caps[:, 2:]], dim=1)
        attended = torch.cat([cls_attended, words_attended], dim=1)
        if output_hidden_states:
            return self._in_chunks(self._encode_text, ids, attended)
        encode = partial(self._encode_text, packed=self.packed)
        states = self._in_chunks(encode, ids, attended)
        cls_pooled = torch.zeros_like(cls_attended)
        pooled_positions = torch.cat([cls_pooled, words_attended], dim=1)
        return masked_mean(states, pooled_positions), states, pooled_positions

    def _encode_text(
        self, ids_NT: Tensor, mask_NT: Tensor, *, packed: bool = False
    ) -> Tensor:
        """Returns the last hidden states of the text tower, [N, T - 1, D]."""
        if packed:
            positions_T = torch.arange(ids_NT.shape[1], device=ids_NT.device)
            positions_NT = positions_T.expand_as(ids_NT)
            return run_packed(
                self.text_encoder, mask_NT, positions_NT, input_ids=ids_NT
            )
        output = self.text_encoder(input_ids=ids_NT, attention_mask=mask_NT)
        return output.last_hidden_state

    def _in_chunks(self, run: Callable[..., Tensor], *inputs_N: Tensor) -> Tensor:
        """Runs a tower on inputs [N, ...], a chunk of clips at a time."""
        num_clips = len(inputs_N[0])
        device = inputs_N[0].device

        def attempt(chunk: ChunkSize) -> Tensor:
            size = chunk.size(num_clips, device)
            return run_chunks(run, size, *inputs_N)

        if torch.is_grad_enabled():
            return attempt(self.chunk_in_training)
        return self._chunk_in_inference.retry(
            partial(attempt, self._chunk_in_inference)
        )

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Any
    ) -> ModelOutput:
        """Runs both towers on a batch. See `forward_video` and `forward_text`.

        Other entries of the batch are ignored.

        Raises:
            ConfigError: the batch is a whole video.
        """
        if vfeats.ndim != 3:
            raise ConfigError(
                "model", [wrong_axes(self, "clips, float [N, F, I]", vfeats)]
            )
        pooled_video, video_states, video_mask = self.forward_video(
            vfeats, vmasks, caps, cmasks
        )
        pooled_text, text_states, text_mask = self.forward_text(caps, cmasks)
        return {
            "pooled_video": pooled_video,
            "pooled_text": pooled_text,
            "video_outputs": video_states,
            "text_outputs": text_states,
            "video_mask_outputs": video_mask,
            "text_mask_outputs": text_mask,
        }


MODELS: Registry[MMFusionSeparate] = Registry("model", nn.Module, "mmpt.models")
"""The classes that `model.model_cls` can name. It can also name a torch module of the user's own
that has the same methods."""
MODELS.register(MMFusionSeparate)
