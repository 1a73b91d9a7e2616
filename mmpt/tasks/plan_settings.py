"""The settings on which the vectors and the plan of an epoch depend, for fingerprints, and the
index that is built from them.
"""

from collections.abc import Iterable
from typing import Any

import torch

from mmpt.config import DatasetConfig, RetrievalConfig
from mmpt.processors.base import Processor
from mmpt.retrieval import RETRIEVERS, VectorRetriever

VECTOR_KEYS = (
    "feature_fps",
    "max_video_len",
    "max_len",
    "clip_per_video",
    "num_video_per_batch",
    "sampled_min_len",
    "sampled_max_len",
    "sort_clips",
    "bert_name",
    "vfeat_dir",
    "tfeat_dir",
    "video_processor",
    "text_processor",
)
"""Keys under `dataset` on which the vectors or a plan depend."""
INDEX_KEYS = (
    "num_cands",
    "centroids",
    "examples_per_cent_to_train",
    "db_type",
    "nprobe",
    "recall",
    "retriever_cls",
)
"""Keys of the retrieval on which a plan depends, in addition to the vectors."""


def vector_settings(
    config: DatasetConfig, readers: Iterable[Processor]
) -> dict[str, Any]:
    """Returns the settings on which the vectors depend.

    Args:
        readers: the processors that read the videos. The keys that only they have are included.
    """
    keys = set(VECTOR_KEYS)
    for reader in readers:
        keys |= reader.Config.model_fields.keys() - DatasetConfig.model_fields.keys()
    return {key: getattr(config, key) for key in keys}


def index_settings(config: RetrievalConfig) -> dict[str, Any]:
    """Returns the settings on which a plan depends, in addition to the vectors."""
    return {key: getattr(config, key) for key in INDEX_KEYS}


def build_retriever(
    config: RetrievalConfig, hidden_size: int, seed: int, device: torch.device
) -> VectorRetriever:
    """Returns an empty index, of the class that the YAML names."""
    name = config.retriever_cls or "VectorRetriever"
    retriever_cls = RETRIEVERS.get(name, "retriever_cls")
    return retriever_cls(
        hidden_size,
        config.centroids,
        db_type=config.db_type,
        examples_per_cent_to_train=config.examples_per_cent_to_train,
        nprobe=config.nprobe,
        seed=seed,
        recall=config.recall,
        device=device,
    )
