"""The processes of a run as a plain value, and the few collectives that are needed; one process needs no group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """This process's place among `size` processes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The world of the initialised process group, or a world of one."""
        if dist.is_available() and dist.is_initialized():
            return cls(rank=dist.get_rank(), size=dist.get_world_size())
        return cls()

    @property
    def is_main(self) -> bool:
        """True in the process that writes files and logs."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's `value` in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather_rows(self, rows_ND: torch.Tensor, positions_N: torch.Tensor, total: int) -> torch.Tensor:
        """Place every process's rows at their global positions and return the whole [total, D] matrix everywhere.

        Args:
            rows_ND: this process's rows, on the device of the process group's back end.
            positions_N: int64, where each row belongs; positions of all processes together are 0..total-1.
        """
        whole = torch.zeros(total, rows_ND.shape[1], dtype=rows_ND.dtype, device=rows_ND.device)
        whole[positions_N.to(rows_ND.device)] = rows_ND
        if self.size > 1:
            dist.all_reduce(whole)
        return whole
