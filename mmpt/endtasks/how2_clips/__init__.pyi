from .data import (
    How2ClipMetaProcessor,
    How2ClipVideoProcessor,
    How2FullVideoMetaProcessor,
    How2VideoProcessor,
)

__all__ = [
    "How2ClipMetaProcessor",
    "How2ClipVideoProcessor",
    "How2FullVideoMetaProcessor",
    "How2VideoProcessor",
]
