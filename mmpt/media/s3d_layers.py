"""The blocks of S3D-G: separable 3D convolutions, self-gating and TensorFlow-style pooling.

The names of submodules are the keys of the released weights.

Source: Xie et al. 2018 (arXiv 1711.11248). The released weights were trained with MIL-NCE, Miech et
al. 2020 (arXiv 1912.06430).
Legend: N clips, C channels, T frames, H, W pixels.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

Triple = tuple[int, int, int]
ONE = (1, 1, 1)
THREE = (3, 3, 3)


class STConv3D(nn.Module):
    """A 3D convolution with batch norm and ReLU.

    A separable convolution is a convolution in space followed by one in time, each with its own
    batch norm and ReLU.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel: kernel size (time, height, width).
        padding: padding (time, height, width).
        separable: split the kernel into (1, height, width) and (time, 1, 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        padding: Triple = (0, 0, 0),
        *,
        separable: bool = False,
    ):
        super().__init__()
        self.separable = separable
        num_frames, height, width = kernel
        frame_padding, row_padding, column_padding = padding
        if separable:
            kernel = (1, height, width)
            padding = (0, row_padding, column_padding)
        self.conv1 = nn.Conv3d(
            in_channels, out_channels, kernel, padding=padding, bias=False
        )
        self.bn1 = nn.BatchNorm3d(out_channels)
        if separable:
            self.conv2 = nn.Conv3d(
                out_channels,
                out_channels,
                kernel_size=(num_frames, 1, 1),
                padding=(frame_padding, 0, 0),
                bias=False,
            )
            self.bn2 = nn.BatchNorm3d(out_channels)

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        """Returns float [N, out_channels, T', H', W']."""
        x_NCTHW = self.conv1(x_NCTHW)
        x_NCTHW = self.bn1(x_NCTHW)
        x_NCTHW = functional.relu(x_NCTHW)
        if self.separable:
            x_NCTHW = self.conv2(x_NCTHW)
            x_NCTHW = self.bn2(x_NCTHW)
            x_NCTHW = functional.relu(x_NCTHW)
        return x_NCTHW


class SelfGating(nn.Module):
    """Scales every channel by a gate in (0, 1), computed from the means of all channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        """Returns the scaled input, float [N, C, T, H, W]."""
        mean_NC = x_NCTHW.mean(dim=(2, 3, 4))
        logits_NC = self.fc(mean_NC)
        gate_NC = torch.sigmoid(logits_NC)
        gate_NC111 = gate_NC[:, :, None, None, None]
        return x_NCTHW * gate_NC111


class SamePool3D(nn.Module):
    """Max pooling with TensorFlow's "SAME" padding.

    Every axis is padded with max(kernel - stride, 0) zeros. If this number is odd, the end gets one
    more than the beginning.
    """

    def __init__(self, kernel: Triple, stride: Triple):
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        # functional.pad expects the last axis first: (W front, W back, H front, ..).
        self.padding: list[int] = []
        for size, step in zip(reversed(kernel), reversed(stride), strict=True):
            total = max(size - step, 0)
            front = total // 2
            back = total - front
            self.padding += [front, back]

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        """Returns float [N, C, T', H', W'].

        The zeros of the padding take part in the maximum. In S3D this changes nothing, because the
        input of a pooling layer is never negative.
        """
        padded = functional.pad(x_NCTHW, self.padding)
        return functional.max_pool3d(padded, self.kernel, self.stride, ceil_mode=True)


class InceptionBlock(nn.Module):
    """Four parallel branches whose outputs are concatenated.

    Branch 0 is a 1x1x1 convolution. Branches 1 and 2 are a 1x1x1 convolution followed by a
    separable 3x3x3 one. Branch 3 is max pooling followed by a 1x1x1 convolution. Each branch ends
    with self-gating.

    Args:
        in_channels: number of input channels.
        widths: number of output channels of the convolutions b0, b1a, b1b, b2a, b2b and b3. The
            block has b0 + b1b + b2b + b3 output channels.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3 = widths
        self.out_channels = b0 + b1b + b2b + b3
        self.conv_b0 = STConv3D(in_channels, b0, ONE)
        self.conv_b1_a = STConv3D(in_channels, b1a, ONE)
        self.conv_b1_b = STConv3D(b1a, b1b, THREE, padding=ONE, separable=True)
        self.conv_b2_a = STConv3D(in_channels, b2a, ONE)
        self.conv_b2_b = STConv3D(b2a, b2b, THREE, padding=ONE, separable=True)
        self.maxpool_b3 = nn.MaxPool3d(THREE, stride=1, padding=1)
        self.conv_b3_b = STConv3D(in_channels, b3, ONE)
        self.gating_b0 = SelfGating(b0)
        self.gating_b1 = SelfGating(b1b)
        self.gating_b2 = SelfGating(b2b)
        self.gating_b3 = SelfGating(b3)

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        """Returns float [N, out_channels, T, H, W]."""
        b0 = self.conv_b0(x_NCTHW)
        b0 = self.gating_b0(b0)
        b1 = self.conv_b1_a(x_NCTHW)
        b1 = self.conv_b1_b(b1)
        b1 = self.gating_b1(b1)
        b2 = self.conv_b2_a(x_NCTHW)
        b2 = self.conv_b2_b(b2)
        b2 = self.gating_b2(b2)
        b3 = self.maxpool_b3(x_NCTHW)
        b3 = self.conv_b3_b(b3)
        b3 = self.gating_b3(b3)
        return torch.cat([b0, b1, b2, b3], dim=1)


def space_to_depth(x_NCTHW: torch.Tensor) -> torch.Tensor:
    """Moves 2x2x2 blocks of pixels into channels: [N, C, T, H, W] to [N, 8 C, T/2, H/2, W/2].

    The new channel ((dt * 2 + dh) * 2 + dw) * C + c holds frame 2t + dt, row 2h + dh and column
    2w + dw of the old channel c.
    """
    # Split each axis into (position of the block, place in the block), move the three places in
    # front of the channels, and join them with the channels.
    blocks = x_NCTHW
    for axis in (4, 3, 2):
        blocks = blocks.unflatten(axis, (-1, 2))
    num, channels, frames, _, height, _, width, _ = blocks.shape
    places_first = blocks.permute(0, 3, 5, 7, 1, 2, 4, 6)
    return places_first.reshape(num, 8 * channels, frames, height, width)


class SentenceModule(nn.Module):
    """S3D's bag-of-words text tower.

    It consists of word embeddings, a linear layer with ReLU, the maximum over the words, and a
    linear layer.

    Args:
        num_embeddings: size of the vocabulary, including 0 for padding.
        output_dim: width of the embedding.
    """

    def __init__(self, num_embeddings: int, output_dim: int):
        super().__init__()
        self.word_embd = nn.Embedding(num_embeddings, 300)
        self.fc1 = nn.Linear(300, 2048)
        self.fc2 = nn.Linear(2048, output_dim)

    def forward(self, ids_NW: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings of sentences, float [N, output_dim].

        Padding takes part in the maximum, as in the released code.

        Args:
            ids_NW: word ids, int64 [N, W], padded with 0.
        """
        words = self.word_embd(ids_NW)
        hidden = self.fc1(words)
        hidden = functional.relu(hidden)
        sentences = hidden.amax(dim=1)
        return self.fc2(sentences)
