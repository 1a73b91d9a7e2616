from .shardedtensor import ShardedTensor

__all__ = ["ShardedTensor"]
