from .data import (
    YoucookFullVideoBGAligner,
    YoucookFullVideoBGMetaProcessor,
    YoucookFullVideoBGProcessor,
    YoucookFullVideoBGTextProcessor,
    YoucookMetaProcessor,
    YoucookVideoProcessor,
)

__all__ = [
    "YoucookFullVideoBGAligner",
    "YoucookFullVideoBGMetaProcessor",
    "YoucookFullVideoBGProcessor",
    "YoucookFullVideoBGTextProcessor",
    "YoucookMetaProcessor",
    "YoucookVideoProcessor",
]
