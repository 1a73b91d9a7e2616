"""fairseq's `mmmodel`: holds the model under the name that released checkpoints use, and loads
those strictly.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import nn

from mmpt.models.checkpoint import WRAPPER_PREFIX, Use, adapt_state


@register_model("mmmodel")
class FairseqMMModel(BaseFairseqModel):
    """Wraps any of our models; state keys are `mmmodel.<key of the model>`.

    Args:
        model: what is trained.
        source: the checkpoint that fairseq is going to load, for messages.
        use: what for; a resumed training must find exactly what it saved.
    """

    def __init__(self, model: nn.Module, source: str = "checkpoint", use: Use = Use.START):
        super().__init__()
        self.mmmodel = model
        self.source = source
        self.use = use

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> FairseqMMModel:
        """Build the model that the task's YAML describes."""
        return cls(*task.build_inner_model())

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the model on a flattened batch."""
        return self.mmmodel(**batch)

    def upgrade_state_dict_named(self, state_dict: dict[str, torch.Tensor], name: str) -> None:
        """Bring a checkpoint's keys to today's names in place; CheckpointError for anything that
        does not fit.
        """
        state = adapt_state(state_dict, self.mmmodel, self.source, self.use)
        state_dict.clear()
        state_dict.update({WRAPPER_PREFIX + key: value for key, value in state.items()})


@register_model_architecture("mmmodel", "mmarch")
def mmarch(args: Namespace) -> None:
    """The one architecture; everything about the network stands in the YAML.

    fairseq takes `--bf16` for `--tpu` and would look for one; this is the last thing that it asks
    before it starts.
    """
    args.tpu = False
