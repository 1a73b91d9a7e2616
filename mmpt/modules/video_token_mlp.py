"""S3D features to BERT-sized tokens; the order of its layers is VideoCLIP's, whose checkpoints fix
the names.

Legend: I width of the features (512), D hidden size.
"""

import torch
from torch import nn


class VideoTokenMLP(nn.Module):
    """Linear, GELU, LayerNorm, Linear: the activation stands before the norm, and the norm's
    epsilon is 1e-5.

    Args:
        input_dim: I.
        hidden_size: D.
        initializer_range: standard deviation of the initial weights (biases start at 0).
    """

    def __init__(self, input_dim: int, hidden_size: int, initializer_range: float = 0.02):
        super().__init__()
        self.linear1 = nn.Linear(input_dim, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.linear2 = nn.Linear(hidden_size, hidden_size)
        for linear in (self.linear1, self.linear2):
            nn.init.normal_(linear.weight, std=initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, vfeats: torch.Tensor) -> torch.Tensor:
        """Return tokens [..., D] of features [..., I]; features of another float type (float16 on
        disk) are cast.
        """
        hidden = nn.functional.gelu(self.linear1(vfeats.to(self.linear1.weight.dtype)))
        return self.linear2(self.LayerNorm(hidden))
