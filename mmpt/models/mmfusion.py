"""The two-tower model of VideoCLIP and Norton: a video BERT and a text BERT that share no layers.

Legend: N clips, F seconds, I width of the features (512), T text slots, D hidden size. Masks are
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
from mmpt.models.bert_weights import read_bert_config, read_bert_weights
from mmpt.models.flops import tower_flops
from mmpt.models.video_bert import MMBertForEncoder
from mmpt.modules import PACKED, ChunkSize, masked_mean, run_chunks, run_packed
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


class MMFusionSeparate(nn.Module):
    """Two towers whose pooled outputs are compared by a dot product.

    The video tower has the first layers of BERT, the text tower has all of them.

    Args:
        bert_config: configuration of the text tower. The video tower differs only in depth.
        num_hidden_video_layers: layers of the video tower.
        max_video_len: largest number of seconds of a clip. It fixes the position of the video's
            [SEP].
        packed: compute real tokens only. The states of padding, which nothing reads, are zero.
        checkpoint_activations: number of clips whose activations training keeps at once. The
            backward pass computes them again, chunk by chunk. False keeps the activations of all
            clips. "auto" keeps as many as the device has memory for.
        clips_per_forward: number of clips that a pass without gradient computes at once. "auto" is
            `CLIPS_PER_FORWARD`, and is halved when the device is out of memory.
    """

    video_encoder_cls: ClassVar[type[MMBertForEncoder]] = MMBertForEncoder
    """Class of the video tower. If a YAML sets `model.video_encoder_cls`, it must be its name."""
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
        # A pass without gradient repeats itself with smaller chunks when memory is short. Training
        # must repeat the whole step, so the training loop calls `chunk_in_training.retry`.
        self.chunk_in_training = ChunkSize("model.checkpoint_activations", checkpoint_activations)
        self._chunk_in_inference = ChunkSize(
            "clips_per_forward", clips_per_forward, CLIPS_PER_FORWARD
        )
        bert_config = copy.deepcopy(bert_config)
        bert_config._attn_implementation = PACKED  # which treats padded batches as "sdpa" does
        video_config = copy.deepcopy(bert_config)
        video_config.num_hidden_layers = num_hidden_video_layers
        self.video_encoder = self.video_encoder_cls(video_config, max_video_len=max_video_len)
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
            max_video_len=dataset.max_video_len,
            packed=model.packed,
            checkpoint_activations=model.checkpoint_activations,
            clips_per_forward=clips_per_forward,
        )
        if pretrained:
            bert = read_bert_weights(dataset.bert_name, bert_config, random_init=model.random_init)
            if bert is not None:
                # The video tower gets BERT's first layers. Its `videomlp` keeps random weights.
                weights, tower = bert.state_dict(), fusion.video_encoder.bert
                fusion.text_encoder.load_state_dict(weights)
                tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
                logger.info("both towers start from %s", dataset.bert_name)
        return fusion

    @classmethod
    def check_config(cls, dataset: DatasetConfig, model: ModelConfig) -> BertConfig:
        """Checks that the settings fit the model, BERT and each other. Builds nothing.

        Returns:
            The configuration of `dataset.bert_name`.
        Raises:
            ConfigError: lists every mistake.
            CheckpointError: BERT cannot be read.
        """
        bert_name, seconds = dataset.bert_name, dataset.max_video_len
        assert bert_name is not None, "checked by the config"
        assert seconds is not None, "checked by the config"
        layers, problems = model.num_hidden_video_layers, []
        if layers is None:
            problems.append("`model.num_hidden_video_layers` must be set, but is not.")
        if model.mm_encoder_cls is not None:
            problems.append(
                f"`model.mm_encoder_cls` must be null, but is `{model.mm_encoder_cls}`: "
                "single-encoder (VLM) models are not part of this framework."
            )
        encoders = {"video_encoder_cls": cls.video_encoder_cls, "text_encoder_cls": BertModel}
        for key, ours in encoders.items():
            if (named := getattr(model, key)) not in (None, ours.__name__):
                problems.append(f"`model.{key}` must be `{ours.__name__}`, but is `{named}`.")

        # (setting, its value, the limit, what the limit counts)
        bert_config = read_bert_config(bert_name)
        positions = bert_config.max_position_embeddings
        limits = [
            ("model.num_hidden_video_layers", layers or 0, bert_config.num_hidden_layers, "layers"),
            ("dataset.max_video_len + 2", seconds + 2, positions, "positions"),
        ]
        if dataset.max_len is not None:
            setting = "dataset.max_len - dataset.max_video_len - 1"
            limits.append((setting, dataset.max_text_len - 1, positions, "positions"))
        for setting, value, most, kind in limits:
            if value > most:
                problems.append(
                    f"`{setting}` must be at most the {most} {kind} of {bert_name}, but is {value}."
                )
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
        video = tower_flops(self.video_encoder.bert, vmasks.sum(-1) + 2)
        return video + tower_flops(self.text_encoder, cmasks.sum(-1) - 1)

    def forward_video(
        self,
        vfeats: Tensor,
        vmasks: Tensor,
        caps: Tensor,
        cmasks: Tensor,
        output_hidden_states: bool = False,
    ) -> Any:
        """Embeds clips. The seconds and the [SEP] are pooled, the [CLS] is not.

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
        attended = torch.cat([cmasks[:, :1], vmasks, cmasks[:, 1:2]], dim=1)
        packed = self.packed and not output_hidden_states
        run = partial(self.video_encoder, packed=packed)
        states = self._in_chunks(run, caps[:, :2], vfeats, attended)
        if output_hidden_states:
            return states
        no, yes = torch.zeros_like(cmasks[:, :1]), torch.ones_like(cmasks[:, :1])
        pooled_positions = torch.cat([no, vmasks, yes], dim=1)
        return masked_mean(states, pooled_positions), states, pooled_positions

    def forward_text(self, caps: Tensor, cmasks: Tensor, output_hidden_states: bool = False) -> Any:
        """Embeds captions. The word pieces and the last [SEP] are pooled, the [CLS] is not.

        Args:
            caps: int64 [N, T]. The video's [SEP] at index 1 is left out.
            cmasks: bool [N, T].
            output_hidden_states: return only the states, also of padding.
        Returns:
            Pooled states [N, D], states [N, T - 1, D] and the mask of pooled positions, bool
            [N, T - 1]. With `output_hidden_states`, only the states.
        """
        ids = torch.cat([caps[:, :1], caps[:, 2:]], dim=1)
        attended = torch.cat([cmasks[:, :1], cmasks[:, 2:]], dim=1)
        packed = self.packed and not output_hidden_states
        states = self._in_chunks(partial(self._encode_text, packed=packed), ids, attended)
        if output_hidden_states:
            return states
        pooled_positions = torch.cat([torch.zeros_like(cmasks[:, :1]), cmasks[:, 2:]], dim=1)
        return masked_mean(states, pooled_positions), states, pooled_positions

    def _encode_text(self, ids_NT: Tensor, mask_NT: Tensor, *, packed: bool) -> Tensor:
        if not packed:
            return self.text_encoder(input_ids=ids_NT, attention_mask=mask_NT).last_hidden_state
        positions = torch.arange(ids_NT.shape[1], device=ids_NT.device).expand_as(ids_NT)
        return run_packed(self.text_encoder, mask_NT, positions, input_ids=ids_NT)

    def _in_chunks(self, run: Callable[..., Tensor], *inputs_N: Tensor) -> Tensor:
        """Runs a tower on inputs [N, ...], a chunk of clips at a time."""
        num_clips, device = len(inputs_N[0]), inputs_N[0].device
        if torch.is_grad_enabled():
            size = self.chunk_in_training.size(num_clips, device)
            return run_chunks(run, size, *inputs_N)
        chunk = self._chunk_in_inference
        return chunk.retry(lambda: run_chunks(run, chunk.size(num_clips, device), *inputs_N))

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Any
    ) -> ModelOutput:
        """Runs both towers on a batch. See `forward_video` and `forward_text`.

        Other entries of the batch are ignored.

        Raises:
            ConfigError: the batch is a whole video.
        """
        if vfeats.ndim != 3:
            raise ConfigError("model", [wrong_axes(self, "clips, float [N, F, I]", vfeats)])
        pooled_video, video_outputs, video_mask_outputs = self.forward_video(
            vfeats, vmasks, caps, cmasks
        )
        pooled_text, text_outputs, text_mask_outputs = self.forward_text(caps, cmasks)
        return {
            "pooled_video": pooled_video,
            "pooled_text": pooled_text,
            "video_outputs": video_outputs,
            "text_outputs": text_outputs,
            "video_mask_outputs": video_mask_outputs,
            "text_mask_outputs": text_mask_outputs,
        }


MODELS: Registry[MMFusionSeparate] = Registry("model", nn.Module, "mmpt.models")
"""The classes that `model.model_cls` can name. It can also name a torch module of the user's own
that has the same methods."""
MODELS.register(MMFusionSeparate)
