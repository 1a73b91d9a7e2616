"""A training step as fairseq calls it: the model, the loss, and the handling of a loss that is NaN
or infinite.

- `mmmodel` wraps our model under the name that released checkpoints use, and loads checkpoints
  strictly.
- `mmloss` is the criterion. It runs the model and the loss, and logs the terms and the speed: clips
  and videos per second, TFLOP/s of the towers on real tokens (and model FLOPs utilization, if the
  device's peak is known), the share of time that training waits for data, and memory.
- `NonFiniteBatches` reports a batch whose loss is not finite. By default, training then stops. With
  `loss.on_nonfinite: skip`, the update is skipped in all processes, at most `loss.max_skipped`
  times in a run.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import Tensor, nn

from mmpt.config.schema import LossConfig
from mmpt.errors import UserError
from mmpt.losses.base import LossOutput, NonFiniteLossError
from mmpt.models.checkpoint import WRAPPER_PREFIX, Use, adapt_state
from mmpt.utils.device_stats import memory_gb, peak_tflops
from mmpt.utils.distributed import World
from mmpt.utils.io import write_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
NOT_AVERAGED = (
    *("loss", "ntokens", "nsentences", "sample_size", "videos", "flops", "data_wait"),
    "stop_requested",
)
"""Entries of a log that are not averaged as terms of the loss or its metrics are."""


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
    """Unsets `--tpu`. The YAML describes the network, so that it has no other fairseq options."""
    # fairseq sets `tpu` with `--bf16`, would then look for a TPU, and calls only this function once
    # it has parsed its options.
    args.tpu = False


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
            # fairseq sums the logs of all processes, so that each one knows if any was asked to
            # stop.
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
        """Returns the result of the loss, and whether the batch counts.

        A batch does not count if its update is skipped because of a loss that is not finite. All
        values of its result are zero.

        Raises:
            NonFiniteLossError: the loss is not finite, and training must stop.
        """
        is_finite, nonfinite = True, self.task.nonfinite
        try:
            result = self.loss(is_dummy_step=is_dummy_step, **batch)
        except NonFiniteLossError as error:
            self.task.handle_nonfinite(batch, error)
            result, is_finite = error.output, False
        if self.training and self.loss.config.gather_negatives:
            # The backward pass of gathered negatives waits for the other processes. So all
            # processes must skip it, or none.
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
            if name not in NOT_AVERAGED:
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
                mfu = sums["flops"] / (1e12 * peak * num_processes)
                metrics.log_speed("mfu", mfu, priority=94, round=3)
        if "data_wait" in sums:
            data_wait = sums["data_wait"] / num_processes
            metrics.log_speed("data_wait", data_wait, priority=95, round=3)
        metrics.log_scalar("memory_gb", memory_gb(), weight=0, priority=1400, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Returns True: all logged values are numbers or scalar tensors."""
        return True


class NonFiniteGradientError(UserError):
    """The loss is finite, but a gradient is not."""


class TooManySkippedError(UserError):
    """More updates were skipped than `loss.max_skipped` allows."""


class NonFiniteBatches:
    """Reports and counts the batches of a run whose loss is not finite.

    Args:
        config: the section `loss`.
        save_dir: folder of the reports.
        rank: rank of this process.
        in_any: returns True in all processes if at least one of them passes True. It waits until
            all processes have called it.
    """

    def __init__(
        self,
        config: LossConfig,
        save_dir: str | Path,
        rank: int,
        in_any: Callable[[bool], bool],
    ):
        self.skips = config.on_nonfinite == "skip"
        self._max_skipped = config.max_skipped
        self._folder = Path(save_dir)
        self._rank = rank
        self._in_any = in_any
        self.num_skipped = 0  # updates of the run, including those before it continued
        self.is_update_skipped = False  # the update in progress
        self._is_batch_bad = False  # the batch in progress, in this process

    def report(self, update: int, sample: Mapping[str, Any], message: str) -> str:
        """Writes a file about a batch, and returns the message with the path of the file.

        Args:
            update: number of the update that the batch belongs to.
            sample: the batch.
            message: what is wrong.
        """
        path = self._folder / f"nonfinite_u{update}_r{self._rank}.json"
        content = {
            "update": update,
            "rank": self._rank,
            "videos": list(plain_values(sample.get("video_id"))),
            "items": list(plain_values(sample.get("idx"))),
            "message": message,
        }
        write_json(path, content)
        where = f"update {update}, rank {self._rank}"
        return f"{where}: {message} The videos of the batch are in {path}."

    def mark(self) -> None:
        """Marks the batch in progress of this process as one whose update must be skipped."""
        self._is_batch_bad = True

    def agree(self) -> bool:
        """Returns whether any process has marked its batch.

        All processes must call this once for each batch.
        """
        is_bad = self.skips and self._in_any(self._is_batch_bad)
        self._is_batch_bad = False
        self.is_update_skipped |= is_bad
        return is_bad

    def take_skipped(self) -> bool:
        """Returns whether to skip the update in progress. A skipped update is counted.

        Raises:
            TooManySkippedError: more updates were skipped than allowed. It is raised in all
                processes.
        """
        if not self.is_update_skipped:
            return False
        self.is_update_skipped = False
        self.num_skipped += 1
        if self.num_skipped > self._max_skipped:
            raise TooManySkippedError(
                f"the loss was not finite in {self.num_skipped} updates, but `loss.max_skipped` "
                f"allows {self._max_skipped}. {self._folder}/nonfinite_*.json name the videos. "
                "Lower the learning rate, or look for broken features of these videos."
            )
        logger.warning(
            "skipped an update whose loss is not finite (%d of at most %d)",
            self.num_skipped,
            self._max_skipped,
        )
        return True

    def state_dict(self) -> dict[str, Any]:
        """Returns the entry for a checkpoint."""
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the entry of a checkpoint."""
        self.num_skipped = state["num_skipped"]


def plain_values(value: Any) -> Iterator[Any]:
    """Yields the values of nested lists, or of a tensor, in one sequence."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        for item in value:
            yield from plain_values(item)
    elif value is not None:
        yield value
