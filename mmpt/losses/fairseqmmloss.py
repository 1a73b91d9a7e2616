"""fairseq's criterion `mmloss`: runs the model and the loss, and logs the terms and the speed.

Logged in training: clips and videos per second, TFLOP/s of the towers on real tokens (and their
share of the device's peak, if that is known), the share of time that training waits for data, and
memory.
"""

from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import nn

from mmpt.utils.device_figures import memory_gb, peak_tflops
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
BOOKKEEPING = ["loss", "ntokens", "nsentences", "sample_size", "videos", "flops", "data_wait"]
"""Entries of a log that are not averaged as terms of the loss or its metrics are."""


@register_criterion("mmloss")
class MMCriterion(FairseqCriterion):
    """The task's loss as a fairseq criterion.

    The parameters of a loss are trained and saved with the model.
    """

    def __init__(self, task: Any):
        super().__init__(task)
        self.loss = task.loss
        self.clips_per_video: int | None = task.inner.config.dataset.clip_per_video

    def forward(
        self,
        model: nn.Module,
        sample: dict[str, Any],
        reduce: bool = True,
        is_dummy_step: bool = False,
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """Returns the loss of one batch, its weight (always 1) and the values to log.

        Args:
            model: fairseq's wrapper of the model, which may synchronise gradients.
            sample: a batch.
            reduce: not used; part of fairseq's interface.
            is_dummy_step: see `Loss.forward`.
        """
        output = model(**sample)
        result = self.loss(is_dummy_step=is_dummy_step, **{**sample, **output})
        num_clips = len(sample["caps"])
        log: dict[str, Any] = {"loss": result.total.detach(), "sample_size": 1}
        log["nsentences"] = num_clips
        log["ntokens"] = sample["caps"].numel() + sample["vmasks"].numel()
        log.update({name: term.detach() for name, term in (result.terms | result.metrics).items()})
        if not self.training:
            return result.total, 1, log
        # The speed of training. Nothing here waits for the GPU.
        if self.task.batches is not None:
            log["data_wait"] = self.task.batches.take_waited_s()
        if self.clips_per_video:
            log["videos"] = num_clips / self.clips_per_video
        if hasattr(self.task.model, "flops"):
            log["flops"] = self.task.model.flops(sample["cmasks"], sample["vmasks"])
        return result.total, 1, log

    def load_state_dict(
        self, state_dict: dict[str, Any] | None, strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads a trained temperature.

        A checkpoint without one, such as the released ones, leaves the initial value.
        """
        if state_dict is None:
            logger.info("the checkpoint holds no temperature: it starts at 0.07")
            return None
        return super().load_state_dict(state_dict, strict, assign)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Logs means over the batches of all processes, their speed, and this process's memory."""
        total = sum(int(log.get("sample_size", 0)) for log in logging_outputs)
        if total == 0:
            return
        names = dict.fromkeys(name for log in logging_outputs for name in log)
        sums = {name: sum(log.get(name, 0) for log in logging_outputs) for name in names}
        for name in ["loss", *(name for name in sums if name not in BOOKKEEPING)]:
            mean = sums[name] / total  # a tensor stays one: no wait for the GPU
            metrics.log_scalar(name, mean, total, round=3 if name == "loss" else 4)
        metrics.log_speed("clips_per_s", int(sums["nsentences"]), priority=91, round=1)
        num_processes = World.current().size
        if "videos" in sums:
            metrics.log_speed("videos_per_s", sums["videos"], priority=92, round=1)
        if "flops" in sums:
            metrics.log_speed("tflops", sums["flops"] / 1e12, priority=93, round=3)
            peak = peak_tflops(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            if peak is not None:
                share = sums["flops"] / (1e12 * peak * num_processes)
                metrics.log_speed("share_of_peak", share, priority=94, round=3)
        if "data_wait" in sums:
            metrics.log_speed("data_wait", sums["data_wait"] / num_processes, priority=95, round=3)
        metrics.log_scalar("memory_gb", memory_gb(), weight=0, priority=1400, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Returns True: all logged values are numbers or scalar tensors."""
        return True
