"""The four parts of an item (meta, video, text, aligner); importing this package registers all of them by name."""

from mmpt.processors.aligner import Aligner, FixedLenAligner, OverlappedAligner, StartClipAligner, VariedLenAligner
from mmpt.processors.base import (
    ALIGNERS,
    FEATURE_DIM,
    META_PROCESSORS,
    TEXT_PROCESSORS,
    VIDEO_PROCESSORS,
    ItemAligner,
    MetaProcessor,
    TextReader,
    VideoReader,
)
from mmpt.processors.downstream import (
    DSAligner,
    How2ClipMetaProcessor,
    How2ClipVideoProcessor,
    TextProcessor,
    VideoProcessor,
)
from mmpt.processors.how2 import (
    How2MetaProcessor,
    ShardedHow2MetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
)
from mmpt.processors.how2_retri import (
    ShardedHow2VideoRetriMetaProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
    VideoRetriAligner,
    VideoRetriOverlappedAligner,
)
from mmpt.processors.sampling import TextClipSamplingProcessor, VideoClipSamplingProcessor

__all__ = [
    "ALIGNERS",
    "FEATURE_DIM",
    "META_PROCESSORS",
    "TEXT_PROCESSORS",
    "VIDEO_PROCESSORS",
    "Aligner",
    "DSAligner",
    "FixedLenAligner",
    "How2ClipMetaProcessor",
    "How2ClipVideoProcessor",
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
