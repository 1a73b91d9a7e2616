"""Maps S3D features to tokens of BERT's width.

Legend: I width of the features (512), D hidden size.
"""

import torch
from torch import nn


class VideoTokenMLP(nn.Module):
    """A network of the layers Linear, GELU, LayerNorm and Linear.

    The order of the layers, the names of the parameters and the norm's epsilon of 1e-5 are the
    same as in VideoCLIP, so that its checkpoints load.

    Args:
        input_dim: I.
        hidden_size: D.
        initializer_range: standard deviation of the initial weights. Biases start at 0.
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
        """Returns tokens [..., D] for features [..., I].

        Features are cast to the dtype of the weights. (On disk they are float16.)
        """
        hidden = nn.functional.gelu(self.linear1(vfeats.to(self.linear1.weight.dtype)))
        return self.linear2(self.LayerNorm(hidden))
