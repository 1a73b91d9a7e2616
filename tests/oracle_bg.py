"""The oracle for whole videos: all windows and all captions of one video at a time."""

import torch

from mmpt.batch import ModelOutput
from tests.oracle import OracleTowers

ORACLE_BG = "tests.oracle_bg.OracleWholeVideo"


class OracleWholeVideo(OracleTowers):
    """Sentence vectors of S captions and mean features of W windows."""

    def forward(
        self, caps: torch.Tensor, cmasks: torch.Tensor, vfeats: torch.Tensor, vmasks: torch.Tensor
    ) -> ModelOutput:
        """Return pooled_text [S, 512] and pooled_video [W, 512] of a batch of one video."""
        assert len(caps) == len(vfeats) == 1
        return {
            "pooled_text": self.forward_text(caps[0], cmasks[0])[0],
            "pooled_video": self.forward_video(vfeats[0], vmasks[0], vfeats[0], vmasks[0])[0],
        }
