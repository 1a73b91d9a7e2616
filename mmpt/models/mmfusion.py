"""The two-tower model: a video BERT and a text BERT that meet only in the loss (VideoCLIP, Norton).

Legend: N clips, F seconds, I width of the features (512), T text slots, D hidden size. Masks are
bool, True = real. A clip's `caps` row is [CLS] [SEP] pieces.. [SEP] [PAD]..: the first [SEP] closes
the video, the second the text.
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
"""Clips computed at once without gradient that `auto` begins with: more are no faster."""


def wrong_axes(model: nn.Module, wanted: str, vfeats: Tensor) -> str:
    """Say that `dataset.aligner` makes batches for another model."""
    return (
        f"`model.model_cls: {type(model).__name__}` takes {wanted}, but `dataset.aligner` makes "
        f"features of shape {list(vfeats.shape)}. Take aligner and model from one of the shipped "
        "YAMLs."
    )


class MMFusionSeparate(nn.Module):
    """Video tower of `num_hidden_video_layers` layers and text tower of all of BERT's; similarity
    is a dot product.

    Args:
        bert_config: of the text tower; the video tower differs in depth only.
        num_hidden_video_layers: layers of the video tower.
        max_video_len: most seconds of a clip, which fixes the position of the video's [SEP].
        packed: compute real tokens only; the states of padding, which nothing reads, are then zero.
    """

    video_encoder_cls: ClassVar[type[MMBertForEncoder]] = MMBertForEncoder
    """Class of the video tower, which a YAML's `model.video_encoder_cls` must name if it names
    one.
    """
    gives: ClassVar[tuple[str, ...]] = tuple(ModelOutput.__annotations__)
    """Names of what `forward` returns; a loss says what it needs under `needs`."""

    def __init__(
        self,
        bert_config: BertConfig,
        *,
        num_hidden_video_layers: int,
        max_video_len: int,
        packed: bool = False,
    ):
        super().__init__()
        self.packed = packed
        self.set_chunks()
        bert_config = copy.deepcopy(bert_config)
        bert_config._attn_implementation = PACKED  # which treats padded batches as "sdpa" does
        video_config = copy.deepcopy(bert_config)
        video_config.num_hidden_layers = num_hidden_video_layers
        self.video_encoder = self.video_encoder_cls(video_config, max_video_len=max_video_len)
        self.text_encoder = BertModel(bert_config)

    @classmethod
    def from_config(
        cls, dataset: DatasetConfig, model: ModelConfig, *, pretrained: bool
    ) -> MMFusionSeparate:
        """Build the model that a YAML describes.

        Args:
            pretrained: start from BERT's weights; False leaves them random, for a checkpoint to be
                loaded.
        Raises:
            ConfigError: keys are missing or do not fit the model or each other.
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

        bert_config = read_bert_config(bert_name)
        positions = bert_config.max_position_embeddings
        limits = [
            ("model.num_hidden_video_layers", layers or 0, bert_config.num_hidden_layers, "layers"),
            ("dataset.max_video_len + 2", seconds + 2, positions, "positions"),
        ]
        if dataset.max_len is not None:
            what = "dataset.max_len - dataset.max_video_len - 1"
            limits.append((what, dataset.max_text_len - 1, positions, "positions"))
        problems += [
            f"`{what}` must be at most the {most} {kind} of {bert_name}, but is {value}."
            for what, value, most, kind in limits
            if value > most
        ]
        if problems or layers is None:
            raise ConfigError(cls.__name__, problems)
        fusion = cls(
            bert_config, num_hidden_video_layers=layers, max_video_len=seconds, packed=model.packed
        )
        if pretrained:
            bert = read_bert_weights(bert_name, bert_config, random_init=model.random_init)
            if bert is not None:  # the video tower gets its first layers; `videomlp` stays fresh
                weights, tower = bert.state_dict(), fusion.video_encoder.bert
                fusion.text_encoder.load_state_dict(weights)
                tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
                logger.info("both towers start from %s", bert_name)
        return fusion

    def set_chunks(self, training: int | str = "auto", inference: int | str = "auto") -> None:
        """Sets how many clips (captions) are computed at once.

        Args:
            training: clips whose activations are held at once; backward computes them again. False:
                those of all clips; "auto": as many as the device has memory for.
            inference: clips of a pass without gradient; "auto": `CLIPS_PER_FORWARD`, and fewer on a
                device without memory for these.
        """
        # Inference retries by itself. Training must repeat the whole step, so whoever trains calls
        # `retry` of this one.
        self.chunk_in_training = ChunkSize("model.checkpoint_activations", training)
        self._chunk_in_inference = ChunkSize("clips_per_forward", inference, CLIPS_PER_FORWARD)

    @torch.no_grad()
    def flops(self, cmasks: Tensor, vmasks: Tensor) -> Tensor:
        """Return the operations of a training step on clips with these masks, bool [.., T] and [..,
        F], as a scalar.
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
        """Embed clips; the video tokens and the [SEP] are pooled, [CLS] is not.

        Args:
            vfeats: float [N, F, I].
            vmasks: bool [N, F].
            caps: int64 [N, T]; only the first two ids are read.
            cmasks: bool [N, T]; the first two say whether [CLS] and [SEP] may be attended to. (One
                that may not is pooled all the same; its state is zero if `packed`.)
            output_hidden_states: return the states only, those of padding too.
        Returns:
            pooled [N, D], states [N, F + 2, D] and pooling mask bool [N, F + 2]; or the states.
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
        """Embed captions; the pieces and the closing [SEP] are pooled, [CLS] is not.

        Args:
            caps: int64 [N, T]; the video's [SEP] at index 1 is left out.
            cmasks: bool [N, T].
            output_hidden_states: return the states only, those of padding too.
        Returns:
            pooled [N, D], states [N, T - 1, D] and pooling mask bool [N, T - 1]; or the states.
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
        """Run a tower on inputs [N, ...], some clips at a time."""
        num_clips, device = len(inputs_N[0]), inputs_N[0].device
        if torch.is_grad_enabled():
            size = self.chunk_in_training.size(num_clips, device)
            return run_chunks(run, size, *inputs_N)
        chunk = self._chunk_in_inference
        return chunk.retry(lambda: run_chunks(run, chunk.size(num_clips, device), *inputs_N))

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Any
    ) -> ModelOutput:
        """Run both towers on a batch (see `forward_video` and `forward_text`); its other entries
        are not read.

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
"""A YAML names a class of these, or a torch module of the user's with the same methods."""
MODELS.register(MMFusionSeparate)
