"""fairseq's criterion `mmloss`: runs the model and the loss, and logs the terms and the speed.

Logged in training: clips and videos per second, TFLOP/s of the towers on real tokens (and their
share of the device's peak, if that is known), the share of time that training waits for data, and
memory.
"""

from collections import defaultdict
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import Tensor, nn

from mmpt.losses.base import LossOutput, NonFiniteLossError
from mmpt.utils.device_figures import memory_gb, peak_tflops
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
BOOKKEEPING = (
    *("loss", "ntokens", "nsentences", "sample_size", "videos", "flops", "data_wait"),
    "stop_requested",
)
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
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Returns the loss of one batch, its weight (always 1) and the values to log.

        Args:
            model: fairseq's wrapper of the model, which may synchronise gradients.
            sample: a batch.
            reduce: not used; part of fairseq's interface.
            is_dummy_step: see `Loss.forward`.
        """
        batch = sample | model(**sample)
        result, is_finite = self._run_loss(batch, is_dummy_step)
        loss = result.total
        num_clips = len(sample["caps"])
        log: dict[str, Any] = {
            "loss": loss.detach(),
            "sample_size": int(is_finite),
            "nsentences": num_clips,
            "ntokens": sample["caps"].numel() + sample["vmasks"].numel(),
            # fairseq adds the logs of all processes up. So they know when one was asked to stop.
            "stop_requested": float(bool(self.task.stop)),
        }
        scalars = result.terms | result.metrics
        for name, scalar in scalars.items():
            log[name] = scalar.detach()
        if not self.training:
            return loss, 1, log

        # The speed of training. Nothing here waits for the GPU.
        task = self.task
        if task.batches is not None:
            log["data_wait"] = task.batches.take_waited_s()
        if self.clips_per_video:
            log["videos"] = num_clips / self.clips_per_video
        if hasattr(task.model, "flops"):
            log["flops"] = task.model.flops(sample["cmasks"], sample["vmasks"])
        return loss, 1, log

    def _run_loss(
        self, batch: dict[str, Any], is_dummy_step: bool
    ) -> tuple[LossOutput, bool]:
        """Returns the result of the loss, and whether it counts.

        If it is not finite and the update is to be skipped, all of its values are zero.

        Raises:
            NonFiniteLossError: it is not finite, and training must stop.
        """
        is_finite, nonfinite = True, self.task.nonfinite
        try:
            result = self.loss(is_dummy_step=is_dummy_step, **batch)
        except NonFiniteLossError as error:
            self.task.handle_nonfinite(batch, error)
            result, is_finite = error.output, False
        if self.training and self.loss.config.gather_negatives:
            # The backward pass waits for the other processes, so that all skip it or none.
            is_finite = not nonfinite.agree()
        if not is_finite:
            zero = next(iter(result.terms.values())).new_zeros((), requires_grad=True)
            terms = dict.fromkeys(result.terms, zero)
            result = LossOutput(terms, dict.fromkeys(result.metrics, zero))
        return result, is_finite

    def load_state_dict(
        self,
        state_dict: dict[str, Any] | None,
        strict: bool = True,
        assign: bool = False,
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
        # Sums of tensors stay tensors, so nothing here waits for the GPU.
        sums: dict[str, Any] = defaultdict(int)
        for log in logging_outputs:
            for name, value in log.items():
                sums[name] = sums[name] + value
        num_batches = int(sums["sample_size"])
        if num_batches == 0:  # all were skipped
            metrics.log_scalar("loss", 0, weight=0)
            return

        # Means over the batches.
        metrics.log_scalar("loss", sums["loss"] / num_batches, num_batches, round=3)
        for name, value in sums.items():
            if name not in BOOKKEEPING:
                metrics.log_scalar(name, value / num_batches, num_batches, round=4)

        # Rates per second, and this process's memory.
        num_processes = World.current().size
        metrics.log_speed("clips_per_s", int(sums["nsentences"]), priority=91, round=1)
        if "videos" in sums:
            metrics.log_speed("videos_per_s", sums["videos"], priority=92, round=1)
        if "flops" in sums:
            tflops = sums["flops"] / 1e12
            metrics.log_speed("tflops", tflops, priority=93, round=3)
            peak = peak_tflops(
                torch.device("cuda" if torch.cuda.is_available() else "cpu")
            )
            if peak is not None:
                share = sums["flops"] / (1e12 * peak * num_processes)
                metrics.log_speed("share_of_peak", share, priority=94, round=3)
        if "data_wait" in sums:
            data_wait = sums["data_wait"] / num_processes
            metrics.log_speed("data_wait", data_wait, priority=95, round=3)
        metrics.log_scalar("memory_gb", memory_gb(), weight=0, priority=1400, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Returns True: all logged values are numbers or scalar tensors."""
        return True
