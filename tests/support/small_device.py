"""A model that runs out of memory if it computes more than a few clips at once."""

import os

import torch

from mmpt.models import MMFusionSeparate


class SmallDevice(MMFusionSeparate):
    """VideoCLIP's model. In training, rank 0 has memory for `MMPT_TEST_FITS` clips at once."""

    def _encode_text(
        self, ids_NT: torch.Tensor, mask_NT: torch.Tensor, *, packed: bool
    ) -> torch.Tensor:
        fits = int(os.environ["MMPT_TEST_FITS"])
        if self.training and os.environ.get("RANK", "0") == "0" and len(ids_NT) > fits:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"
            )
        return super()._encode_text(ids_NT, mask_NT, packed=packed)
