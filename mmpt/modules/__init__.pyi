from .chunks import ChunkSize, run_chunks, step_in_memory
from .packing import PACKED, run_packed

__all__ = ["PACKED", "ChunkSize", "run_chunks", "run_packed", "step_in_memory"]
