"""Means over the real positions of a sequence.

Legend: N sequences, P positions, D hidden size.
"""

import torch


def masked_mean(hidden_NPD: torch.Tensor, mask_NP: torch.Tensor) -> torch.Tensor:
    """Returns the mean over the positions where the mask is True, [N, D].

    The weights have the dtype of `hidden_NPD`.

    Args:
        hidden_NPD: float.
        mask_NP: bool. A row without any True gives NaN.
    """
    weights_NP = mask_NP.to(hidden_NPD.dtype)
    weights_NP = weights_NP / weights_NP.sum(dim=1, keepdim=True)
    return torch.bmm(weights_NP[:, None], hidden_NPD)[:, 0]
