"""Building blocks of the towers: video token MLP, token row of the video tower, masked mean. No config, no I/O."""

from mmpt.modules.embeddings import MMBertEmbeddings
from mmpt.modules.pooling import masked_mean
from mmpt.modules.video_token_mlp import VideoTokenMLP

__all__ = ["MMBertEmbeddings", "VideoTokenMLP", "masked_mean"]
