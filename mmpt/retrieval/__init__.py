"""Hard-negative batches from video vectors: collect them, find neighbours, plan batches. Knows vectors and ids only."""

from mmpt.registry import Registry
from mmpt.retrieval.candidates import choose_centres, plan_batches, plan_hardness, refresh_plan
from mmpt.retrieval.plan import HARDNESS_LOG, Hardness, Plan, PlanMismatchError, ids_fingerprint, plan_fingerprint
from mmpt.retrieval.retriever import VectorRetriever
from mmpt.retrieval.vectorbank import VectorBank, remove_other_banks
from mmpt.retrieval.vectorpool import DistributedVideoVectorPool, VideoVectorPool, video_vectors

VECTOR_POOLS: Registry[VideoVectorPool] = Registry("vector pool", VideoVectorPool)
VECTOR_POOLS.register(VideoVectorPool)
VECTOR_POOLS.register(DistributedVideoVectorPool)

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
    "VectorBank",
    "VectorRetriever",
    "VideoVectorPool",
    "choose_centres",
    "ids_fingerprint",
    "plan_batches",
    "plan_fingerprint",
    "plan_hardness",
    "refresh_plan",
    "remove_other_banks",
    "video_vectors",
]
