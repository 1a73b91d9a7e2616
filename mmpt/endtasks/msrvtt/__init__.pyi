from .data import MSRVTTMetaProcessor, MSRVTTTextProcessor

__all__ = [
    "MSRVTTMetaProcessor",
    "MSRVTTTextProcessor",
]
