"""fairseq's model `mmmodel`: wraps our model under the name that released checkpoints use, and
loads checkpoints strictly.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import Tensor, nn

from mmpt.models.checkpoint import WRAPPER_PREFIX, Use, adapt_state


@register_model("mmmodel")
class FairseqMMModel(BaseFairseqModel):
    """A wrapper of any of our models. Its state keys are `mmmodel.<key of the model>`.

    Args:
        model: the model that is trained.
        source: path of the checkpoint that fairseq will load, for messages.
        use: the use of that checkpoint. A resumed training must find exactly the keys that it
            saved.
    """

    def __init__(
        self, model: nn.Module, source: str = "checkpoint", use: Use = Use.START
    ):
        super().__init__()
        self.mmmodel = model
        self.source = source
        self.use = use

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> FairseqMMModel:
        """Builds the model that the task's YAML describes."""
        model, source, use = task.build_inner_model()
        return cls(model, source, use)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Runs the model on a batch."""
        return self.mmmodel(**batch)

    def upgrade_state_dict_named(
        self, state_dict: dict[str, Tensor], name: str
    ) -> None:
        """Renames the keys of a checkpoint in place.

        Raises:
            CheckpointError: the weights do not fit the model.
        """
        state = adapt_state(state_dict, self.mmmodel, self.source, self.use)
        state_dict.clear()
        for key, value in state.items():
            state_dict[WRAPPER_PREFIX + key] = value


@register_model_architecture("mmmodel", "mmarch")
def mmarch(args: Namespace) -> None:
    """Fills in the settings of the only architecture. The YAML holds the network's.

    fairseq calls such a function last, after it has parsed its options. `--bf16` implies `--tpu`
    there, with which fairseq would look for a TPU.
    """
    args.tpu = False
