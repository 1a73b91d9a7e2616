"""Hard-negative batches from video vectors: collect them, find neighbours, plan batches. Knows vectors and ids only."""

from mmpt.registry import Registry
from mmpt.retrieval.candidates import choose_centres, plan_batches, plan_hardness, refresh_plan
from mmpt.retrieval.plan import HARDNESS_LOG, Hardness, Plan, PlanMismatchError, ids_fingerprint, plan_fingerprint
from mmpt.retrieval.retriever import VectorRetriever
from mmpt.retrieval.vectorpool import (
    VECTOR_POOLS,
    DistributedVideoVectorPool,
    VideoVectorPool,
    remove_other_vectors,
    video_vectors,
)

RETRIEVERS: Registry[VectorRetriever] = Registry("retriever", VectorRetriever)
RETRIEVERS.register(VectorRetriever)

__all__ = [
    "HARDNESS_LOG",
    "RETRIEVERS",
    "VECTOR_POOLS",
    "DistributedVideoVectorPool",
    "Hardness",
    "Plan",
    "PlanMismatchError",
    "VectorRetriever",
    "VideoVectorPool",
    "choose_centres",
    "ids_fingerprint",
    "plan_batches",
    "plan_fingerprint",
    "plan_hardness",
    "refresh_plan",
    "remove_other_vectors",
    "video_vectors",
]
