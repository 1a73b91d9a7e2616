"""S3D-G, the network that embeds one second of video as 512 numbers, and its released weights.

The weights were trained on HowTo100M. They also contain a text tower, which MMPT does not use. This
tower is loaded only if its dictionary of words is given.

Source: Miech et al. 2020 (arXiv 1912.06430).
Legend: N clips, C channels (RGB), T frames, H, W pixels, K width of the embedding.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from mmpt.batch import FEATURE_DIM
from mmpt.errors import CheckpointError, DataError
from mmpt.media.s3d_layers import (
    InceptionBlock,
    SamePool3D,
    SelfGating,
    SentenceModule,
    STConv3D,
    space_to_depth,
)
from mmpt.utils.checkpoint_file import load_checkpoint, require_finite
from mmpt.utils.io import load_word_array

S3D_WEIGHTS = Path("pretrained_models/s3d_howto100m.pth")
_REMEDY = "Get it with `mmpt download s3d`; `mmpt download --list` has its addresses."
NUM_EMBEDDINGS = 66250  # the words of the released dictionary, and 0 for padding
MAX_WORDS = 16  # words of a sentence that are embedded

INCEPTION = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Block -> number of output channels of its convolutions b0, b1a, b1b, b2a, b2b and b3."""

LAYERS = (
    "conv1",
    "maxpool_2a",
    "conv_2b",
    "conv_2c",
    "gating",
    "maxpool_3a",
    "mixed_3b",
    "mixed_3c",
    "maxpool_4a",
    "mixed_4b",
    "mixed_4c",
    "mixed_4d",
    "mixed_4e",
    "mixed_4f",
    "maxpool_5a",
    "mixed_5b",
    "mixed_5c",
)
"""The layers in the order in which they run."""


class S3D(nn.Module):
    """The S3D-G network. Its state-dict keys are the keys of `s3d_howto100m.pth`.

    Args:
        words: the dictionary of the text tower, as words or as the path of `s3d_dict.npy`. With
            None, there is no text tower.
    Raises:
        DataError: the dictionary cannot be read, is empty, or has too many words.
    """

    def __init__(self, words: str | Path | Sequence[str] | None = None):
        super().__init__()
        # The first layer takes 2x2x2 blocks of RGB pixels as 24 channels.
        self.conv1 = STConv3D(24, 64, kernel=(2, 4, 4), padding=(1, 2, 2))
        self.conv_2b = STConv3D(64, 64, kernel=(1, 1, 1))
        self.conv_2c = STConv3D(
            64, 192, kernel=(3, 3, 3), padding=(1, 1, 1), separable=True
        )
        self.gating = SelfGating(192)
        self.maxpool_2a = SamePool3D(kernel=(1, 3, 3), stride=(1, 2, 2))
        self.maxpool_3a = SamePool3D(kernel=(1, 3, 3), stride=(1, 2, 2))
        self.maxpool_4a = SamePool3D(kernel=(3, 3, 3), stride=(2, 2, 2))
        self.maxpool_5a = SamePool3D(kernel=(2, 2, 2), stride=(2, 2, 2))
        channels = 192
        for name, widths in INCEPTION.items():
            block = InceptionBlock(channels, widths)
            self.add_module(name, block)
            channels = block.out_channels
        self.fc = nn.Linear(channels, FEATURE_DIM)
        self.word_ids: dict[str, int] = {}
        if words is not None:
            self.word_ids = _number_words(words)
            self.text_module = SentenceModule(NUM_EMBEDDINGS, FEATURE_DIM)

    def forward(self, clips_NCTHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Embeds clips.

        Args:
            clips_NCTHW: float [N, 3, T, H, W] in [0, 1], without further normalisation. T, H and W
                must be even.
        Returns:
            `video_embedding`, float [N, K], which MMPT calls the S3D feature, and `mixed_5c`,
            float [N, 1024], from which it is computed.
        Raises:
            DataError: the clips have another shape.
        """
        shape = list(clips_NCTHW.shape)
        is_clip = len(shape) == 5 and shape[1] == 3
        has_even_sizes = all(size > 0 and size % 2 == 0 for size in shape[2:])
        if not (is_clip and has_even_sizes):
            raise DataError(
                "clips for S3D must be [clips, 3, frames, height, width] with even frames, height "
                f"and width (30 x 224 x 224 in HowTo100M features), but are {shape}."
            )
        x_NCTHW = space_to_depth(clips_NCTHW)
        for name in LAYERS:
            layer = self.get_submodule(name)
            x_NCTHW = layer(x_NCTHW)
            if name == "conv1":
                # conv1 has an even kernel, so its padding makes one position too many.
                x_NCTHW = x_NCTHW[:, :, 1:, 1:, 1:]
        mean_NC = x_NCTHW.mean(dim=(2, 3, 4))
        return {"video_embedding": self.fc(mean_NC), "mixed_5c": mean_NC}

    def tokenise(self, sentences: Sequence[str]) -> torch.Tensor:
        """Returns the ids of the first 16 known words of each sentence, int64 [N, 16], padded with
        0.
        """
        ids_NW = torch.zeros((len(sentences), MAX_WORDS), dtype=torch.int64)
        for ids_W, sentence in zip(ids_NW, sentences, strict=True):
            words = re.findall(r"[\w']+", sentence.lower())
            known = [self.word_ids[word] for word in words if word in self.word_ids]
            ids = known[:MAX_WORDS]
            ids_W[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return ids_NW

    def forward_text(self, sentences: Sequence[str]) -> dict[str, torch.Tensor]:
        """Returns `text_embedding`, float [N, K]. The network must have its words."""
        assert self.word_ids, (
            "this S3D was built without words, so it has no text tower"
        )
        ids_NW = self.tokenise(sentences)
        ids_NW = ids_NW.to(self.fc.weight.device)
        return {"text_embedding": self.text_module(ids_NW)}


def _number_words(words: str | Path | Sequence[str]) -> dict[str, int]:
    """Returns the ids of the words of a dictionary, counted from 1."""
    if isinstance(words, str | Path):
        words = read_words(words)
    if not 0 < len(words) < NUM_EMBEDDINGS:
        raise DataError(
            f"the dictionary must hold 1 to {NUM_EMBEDDINGS - 1} words, but holds {len(words)}."
        )
    return {str(word): number for number, word in enumerate(words, start=1)}


def read_words(path: str | Path) -> list[str]:
    """Returns the words of `s3d_dict.npy`, in order.

    Raises:
        DataError: the file is missing, or is not an array of words.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file. {_REMEDY}")
    return load_word_array(path)


def load_s3d(weights: str | Path = S3D_WEIGHTS, words: str | Path | None = None) -> S3D:
    """Returns S3D with the released weights, in eval mode, on the CPU, in float32.

    Args:
        weights: path of `s3d_howto100m.pth`, a plain state dict. It is loaded strictly.
        words: path of `s3d_dict.npy`, or None to leave the text tower out.
    Raises:
        CheckpointError: the weights are missing or damaged, belong to another network, or contain
            NaN or infinity.
        DataError: the dictionary cannot be read.
    """
    path = Path(weights)
    if not path.is_file():
        raise CheckpointError(f"{path}: S3D's weights are not there. {_REMEDY}")
    state = load_checkpoint(path)
    if words is None:
        text_names = [name for name in state if str(name).startswith("text_module.")]
        for name in text_names:
            del state[name]
    network = S3D(words)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as err:
        # Other names, shapes, or no tensors.
        reason = " ".join(str(err).split())
        raise CheckpointError(
            f"{path}: these are not S3D's weights ({reason[:300]} ..). {_REMEDY}"
        ) from err
    require_finite(state, path, _REMEDY)
    return network.eval()
