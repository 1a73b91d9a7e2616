"""fairseq's `mmloss`: runs the (possibly distributed) model it is handed, and logs every loss term by name."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import nn

from mmpt.utils.log import get_logger

logger = get_logger(__name__)
BOOKKEEPING = ("loss", "ntokens", "nsentences", "sample_size")


@register_criterion("mmloss")
class MMCriterion(FairseqCriterion):
    """The task's loss as a fairseq criterion; a loss with parameters is trained and saved with the model."""

    def __init__(self, task: Any):
        super().__init__(task)
        self.loss = task.inner.build_loss()
        self.flatten = task.inner.flatten

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """Return the loss of one batch, its weight (always 1) and what to log.

        The model is the wrapper that fairseq hands in, so that any gradient synchronisation of its own takes part.
        """
        batch = self.flatten(sample)
        output = model(**batch)
        result = self.loss(**{**batch, **output})
        log: dict[str, Any] = {"loss": result.total.detach(), "sample_size": 1}
        log["nsentences"] = len(batch["caps"])
        log["ntokens"] = batch["caps"].numel() + batch["vmasks"].numel()
        log.update({name: term.detach() for name, term in (result.terms | result.metrics).items()})
        return result.total, 1, log

    def load_state_dict(self, state_dict: dict[str, Any] | None, strict: bool = True, assign: bool = False) -> Any:
        """Load a trained temperature; a checkpoint without one (as all released are) leaves it at its start."""
        if state_dict is None:
            logger.info("the checkpoint holds no temperature: it starts at 0.07")
            return None
        return super().load_state_dict(state_dict, strict, assign)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log means over batches of all processes, clips per second, and this process's memory."""
        total = sum(int(log.get("sample_size", 0)) for log in logging_outputs)
        if total == 0:
            return
        names = [name for name in logging_outputs[0] if name not in BOOKKEEPING]
        for name in ["loss", *names]:
            mean = sum(log.get(name, 0.0) for log in logging_outputs) / total  # a tensor stays one: no wait for the GPU
            metrics.log_scalar(name, mean, total, round=3 if name == "loss" else 4)
        clips = sum(int(log.get("nsentences", 0)) for log in logging_outputs)
        metrics.log_speed("clips_per_s", clips, priority=91, round=1)
        metrics.log_scalar("memory_gb", memory_gb(), weight=0, priority=1400, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True: everything logged is a number or a tensor of one."""
        return True


def memory_gb() -> float:
    """Memory of this process in GB: what it holds of the GPU if it uses one, else its peak resident memory.

    (The GPU's peak cannot be read here: fairseq resets it just before it asks for metrics.)
    """
    if torch.cuda.is_available() and torch.cuda.memory_reserved():
        return torch.cuda.memory_reserved() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
