"""Building blocks of the towers: video token MLP, token row, runs without padding, masked mean. No config, no I/O."""

from mmpt.modules.embeddings import MMBertEmbeddings
from mmpt.modules.packing import PACKED, run_packed
from mmpt.modules.pooling import masked_mean
from mmpt.modules.video_token_mlp import VideoTokenMLP

__all__ = ["PACKED", "MMBertEmbeddings", "VideoTokenMLP", "masked_mean", "run_packed"]
