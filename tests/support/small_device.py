"""A model for whole jobs, whose device has memory for a few clips only."""

import os

import torch

from mmpt.models import MMFusionSeparate


class SmallDevice(MMFusionSeparate):
    """Raises in the process of rank 0 with more than `MMPT_TEST_FITS` clips at once."""

    def _encode_text(
        self, ids_NT: torch.Tensor, mask_NT: torch.Tensor, *, packed: bool
    ) -> torch.Tensor:
        fits = int(os.environ["MMPT_TEST_FITS"])
        if self.training and os.environ.get("RANK", "0") == "0" and len(ids_NT) > fits:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"
            )
        return super()._encode_text(ids_NT, mask_NT, packed=packed)
