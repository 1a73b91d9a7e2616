"""Building blocks of the towers: token MLP and row, no padding, chunks, products, masked mean. No config, no I/O."""

from mmpt.modules.chunks import run_chunks
from mmpt.modules.embeddings import MMBertEmbeddings
from mmpt.modules.linear import use_onednn
from mmpt.modules.packing import PACKED, run_packed
from mmpt.modules.pooling import masked_mean
from mmpt.modules.video_token_mlp import VideoTokenMLP

__all__ = ["PACKED", "MMBertEmbeddings", "VideoTokenMLP", "masked_mean", "run_chunks", "run_packed", "use_onednn"]
