from .aligner import Aligner, FixedLenAligner, OverlappedAligner, StartClipAligner, VariedLenAligner
from .base import (
    ALIGNERS,
    META_PROCESSORS,
    TEXT_PROCESSORS,
    VIDEO_PROCESSORS,
    ItemAligner,
    MetaProcessor,
    TextReader,
    VideoReader,
)
from .downstream import DSAligner, TextProcessor, VideoProcessor
from .how2 import (
    How2MetaProcessor,
    ShardedHow2MetaProcessor,
    ShardedHow2VideoRetriMetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
    VideoRetriAligner,
    VideoRetriOverlappedAligner,
)
from .sampling import TextClipSamplingProcessor, VideoClipSamplingProcessor

__all__ = [
    "ALIGNERS",
    "META_PROCESSORS",
    "TEXT_PROCESSORS",
    "VIDEO_PROCESSORS",
    "Aligner",
    "DSAligner",
    "FixedLenAligner",
    "How2MetaProcessor",
    "ItemAligner",
    "MetaProcessor",
    "OverlappedAligner",
    "ShardedHow2MetaProcessor",
    "ShardedHow2VideoRetriMetaProcessor",
    "ShardedTextProcessor",
    "ShardedVideoProcessor",
    "ShardedVideoRetriTextProcessor",
    "ShardedVideoRetriVideoProcessor",
    "StartClipAligner",
    "TextClipSamplingProcessor",
    "TextProcessor",
    "TextReader",
    "VariedLenAligner",
    "VideoClipSamplingProcessor",
    "VideoProcessor",
    "VideoReader",
    "VideoRetriAligner",
    "VideoRetriOverlappedAligner",
]
