"""The loss of the Norton recipe as its YAML has it, changed where a test needs it smaller."""

from typing import Any

from mmpt.config import load_config
from mmpt.losses import MMContraLoss
from tests.support.paths import ROOT


def norton_loss(*, threshold: int = 8, **changes: Any) -> MMContraLoss.Config:
    """Return the YAML's `loss`, with sequences of `threshold` clips and other values of its keys
    where given.
    """
    loss = load_config(ROOT / "projects/retri/norton/how2_pretrain.yaml").loss
    assert isinstance(loss, MMContraLoss.Config)
    assert loss.sequence_contrast is not None
    return loss.replace(
        sequence_contrast=loss.sequence_contrast.replace(threshold=threshold), **changes
    )
