from .chunks import ChunkSize, run_chunks
from .packing import PACKED, run_packed
from .pooling import masked_mean
from .video_token_mlp import VideoTokenMLP

__all__ = ["PACKED", "ChunkSize", "VideoTokenMLP", "masked_mean", "run_chunks", "run_packed"]
