from .plan import (
    HARDNESS_LOG,
    Plan,
    ids_fingerprint,
    plan_batches,
    plan_fingerprint,
    plan_hardness,
    refresh_plan,
)
from .retriever import RETRIEVERS, VectorRetriever
from .vectorpool import (
    VECTOR_POOLS,
    DistributedVideoVectorPool,
    VideoVectorPool,
    remove_other_vectors,
    video_vectors,
)

__all__ = [
    "HARDNESS_LOG",
    "RETRIEVERS",
    "VECTOR_POOLS",
    "DistributedVideoVectorPool",
    "Plan",
    "VectorRetriever",
    "VideoVectorPool",
    "ids_fingerprint",
    "plan_batches",
    "plan_fingerprint",
    "plan_hardness",
    "refresh_plan",
    "remove_other_vectors",
    "video_vectors",
]
