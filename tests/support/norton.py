"""The loss of Norton's YAML, with the changes that a test needs."""

from typing import Any

from mmpt.config import load_config
from mmpt.losses import MMContraLoss
from tests.support.paths import ROOT


def norton_loss(*, threshold: int = 8, **changes: Any) -> MMContraLoss.Config:
    """Returns the `loss` of the YAML.

    Args:
        threshold: clips per sequence.
        changes: other values of keys of the loss.
    """
    loss = load_config(ROOT / "projects/retri/norton/how2_pretrain.yaml").loss
    assert isinstance(loss, MMContraLoss.Config)
    assert loss.sequence_contrast is not None
    return loss.replace(
        sequence_contrast=loss.sequence_contrast.replace(threshold=threshold), **changes
    )
