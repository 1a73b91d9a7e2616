"""Small tools that know nothing of models or data sets.

`ShardedTensor` is published here too. It is imported on first use, because it needs torch.
"""

from typing import Any

__all__ = ["ShardedTensor"]


def __getattr__(name: str) -> Any:
    if name == "ShardedTensor":
        from mmpt.shards.shardedtensor import ShardedTensor

        return ShardedTensor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
