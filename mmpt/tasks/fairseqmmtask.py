"""fairseq's task `mmtask`: reads the YAML, gives fairseq the data sets, the model and the loss, and
plans the batches of each epoch.

`fairseqmmloop.py` wraps fairseq's training loop, and `failure_report.py` reports how it failed.
"""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from fairseq.distributed.utils import _TensorPlaceholder, all_reduce, get_global_group
from fairseq.logging import metrics
from fairseq.tasks import LegacyFairseqTask, register_task
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode
from torch import nn
from torch.distributed import distributed_c10d

from mmpt.batch import Split
from mmpt.config import RunConfig, load_config
from mmpt.config.run import LAST
from mmpt.datasets import MMDataset
from mmpt.datasets.fairseqmmdataset import (
    FairseqMMDataset,
    PlannedBatchIterator,
    ShardedBatchIterator,
)
from mmpt.losses.base import NonFiniteLossError
from mmpt.models.checkpoint import Use, check_optimizer_state
from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.modules.chunks import step_in_memory
from mmpt.shards.feature_info import find_feature_info
from mmpt.tasks import fairseqmmloop
from mmpt.tasks.failure_report import leave_process_group, report_failure
from mmpt.tasks.fairseqmmstep import NonFiniteBatches
from mmpt.tasks.retritask import RetriTask
from mmpt.tasks.task import Task
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger
from mmpt.utils.metrics_log import MetricsLog, known_metrics
from mmpt.utils.run_loggers import COMMIT, RunLogger, RunMetadata, open_loggers
from mmpt.utils.stopping import SIGNALS, StopRequest, end_children
from mmpt.utils.time_left import minutes_left, share_done

logger = get_logger(__name__)
PASSED_ON = (
    "seed num_shards shard_id num_workers skip_remainder_batch grouped_shuffling"
)
"""Arguments of `get_batch_iterator` that fairseq's iterator takes by the same names."""
NOT_FLAT = (
    "bf16",
    "memory_efficient_fp16",
    "memory_efficient_bf16",
    "fp16_no_flatten_grads",
)
"""Options with which fairseq's optimizer keeps the parameters separate, as in float32. With `fp16`
alone, it flattens all of them into one tensor."""
GATHERED = (
    "With `loss.gather_negatives` the processes wait for each other in a step, so that none can "
    "repeat it alone: set `model.checkpoint_activations` to a number of clips (for example 64), or "
    "to a smaller one."
)
STATE = "FairseqMMTask"
"""Entry of a checkpoint's `extra_state` with the state of the task. fairseq uses the class name."""

# Rank 0 sends a checkpoint to the others, with fairseq's settings as OmegaConf objects. torch loads
# objects of other packages only if their classes are listed here.
SETTINGS: list[Any] = [DictConfig, ListConfig, AnyNode, ContainerMetadata, Metadata]
PLAIN: list[Any] = [defaultdict, dict, list, int, Any, _TensorPlaceholder]
torch.serialization.add_safe_globals([*SETTINGS, *PLAIN])


@register_task("mmtask")
class FairseqMMTask(LegacyFairseqTask):
    """An adapter between fairseq and `inner`, the `Task` that the YAML names."""

    @staticmethod
    def add_args(parser: argparse.ArgumentParser) -> None:
        """Adds the YAML, and options of the groups `checkpoint` and `distributed_training`."""
        parser.add_argument(
            "taskconfig", metavar="FILE", help="YAML that describes the run"
        )
        parser.add_argument("--save-every-minutes", type=float, metavar="M")
        parser.add_argument(
            "--stop-signals", type=re.compile(r"SIG\w+").findall, default=SIGNALS
        )
        parser.add_argument("--timeout-minutes", type=float, metavar="M")

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        config = load_config(args.taskconfig)
        self.world = World.current()
        self.inner = Task.from_config(config, seed=args.seed)
        self.loss = self.inner.build_loss()
        self.model: nn.Module | None = None
        # Batches of the current training epoch. None before the first one.
        self.batches: PlannedBatchIterator | None = None
        self.num_updates = 0  # completed before the current update
        self.epoch = 1
        # Only rank 0 writes metrics. The list is filled when the checkpoint has been loaded.
        self.metrics_logs: list[MetricsLog | RunLogger] = []
        self.sample: dict[str, Any] = {}  # of the current step
        # Progress (fraction of the run) and time at the first update of this process.
        self.start: tuple[float, float] | None = None
        self.has_updated = False  # in this process
        self.stop = StopRequest(args.stop_signals)
        self.run = fairseqmmloop.RunState(
            self.stop, self._is_in_any, args.save_every_minutes
        )
        assert config.loss is not None, "checked by the config"
        self.nonfinite = NonFiniteBatches(
            config.loss, args.save_dir, self.world.rank, self._is_in_any
        )

    @classmethod
    def setup_task(cls, args: argparse.Namespace, **kwargs: Any) -> FairseqMMTask:
        """Returns the task, and installs the exception hook and the handlers of signals."""
        sys.excepthook = partial(report_failure, args, None)
        atexit.register(leave_process_group)
        atexit.register(end_children)
        world = World.current()
        if not world.is_main:  # rank 0 logs messages that are the same in every process
            logging.getLogger("mmpt").setLevel(logging.WARNING)
        if world.size > 1 and args.timeout_minutes:
            timeout = timedelta(minutes=args.timeout_minutes)
            distributed_c10d._set_pg_timeout(timeout, get_global_group())
        fairseqmmloop.wrap_training_loop()
        task = cls(args)
        sys.excepthook = partial(report_failure, args, task.stop)
        task.stop.listen()
        return task

    def build_inner_model(self) -> tuple[nn.Module, str, Use]:
        """Builds the network.

        BERT's weights are read only if no checkpoint is loaded later.

        Returns:
            The network, the path of the checkpoint that fairseq will load, and its use.
        Raises:
            CheckpointError: the checkpoint's optimizer state belongs to other parameters.
        """
        args = self.args
        path = Path(args.restore_file)  # the launcher has checked that the file exists
        if args.restore_file == LAST:
            path = Path(args.save_dir) / LAST
        self.model = self.inner.build_model(pretrained=not path.is_file())
        if args.reset_optimizer:
            return self.model, str(path), Use.START
        if path.is_file() and self.world.is_main:
            parameters = chain(self.model.parameters(), self.loss.parameters())
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            flat = args.fp16 and not any(getattr(args, name) for name in NOT_FLAT)
            check_optimizer_state(path, trained, flat=flat)
        return self.model, str(path), Use.RESUME

    def load_dataset(self, split: str, **kwargs: Any) -> None:
        """Builds the data set `train`, `valid` or `test`, if the YAML names its source.

        Raises:
            ValueError: another name.
        """
        dataset = self.inner.build_dataset(Split(split))
        if dataset is not None:
            self.datasets[split] = FairseqMMDataset(dataset, training=split == "train")

    def get_batch_iterator(self, dataset: FairseqMMDataset, **kwargs: Any) -> Any:
        """Returns an iterator: fairseq's in validation, `PlannedBatchIterator` for planned batches.

        The plan of an epoch is made when its first batch is needed. By then the checkpoint has been
        loaded. If an interrupted epoch continues, its plan is read instead of computed.
        """
        if not dataset.training:
            return super().get_batch_iterator(dataset, **kwargs)
        settings: dict[str, Any] = {name: kwargs[name] for name in PASSED_ON.split()}
        settings |= {
            "epoch": kwargs["epoch"],
            "buffer_size": kwargs["data_buffer_size"],
        }
        if not isinstance(self.inner, RetriTask):
            batches = dataset.batch_by_size(
                dataset.ordered_indices(), max_sentences=kwargs["max_sentences"]
            )
            return ShardedBatchIterator(dataset, dataset.collater, batches, **settings)
        assert self.model is not None, (
            "fairseq builds the model before it asks for batches"
        )
        dataset.set_epoch(kwargs["epoch"])
        self.batches = PlannedBatchIterator(
            dataset,
            plan=partial(self._plan_epoch, dataset.dataset),
            batch_size=kwargs["max_sentences"] or 1,
            resumes=not self.args.reset_optimizer,
            **settings,
        )
        return self.batches

    def _plan_epoch(self, dataset: MMDataset, epoch: int, wanted: str | None) -> str:
        """Plans an epoch. A signal ends the process at once, as a refresh has its work in files."""
        assert isinstance(self.inner, RetriTask)
        assert self.model is not None
        self.stop.end_at_once()
        return self.inner.plan_epoch(dataset, self.model, epoch, self.world, wanted)

    def train_step(
        self,
        sample: Any,
        model: nn.Module,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Any:
        """Runs forward and backward as fairseq does, in smaller chunks if memory is short.

        Args:
            ignore_grad: True if this process has no batch left and runs a dummy step.
        Raises:
            DeviceMemoryError: the device is out of memory, and chunks cannot be smaller, or the
                other processes would have to repeat the step, too.
        """
        self.stop.save_first()
        self.num_updates = update_num
        self.sample = sample
        # fairseq's train_step calls criterion(model, sample).
        criterion_of_step = partial(criterion, is_dummy_step=ignore_grad)
        step = partial(
            super().train_step,
            sample,
            model,
            criterion_of_step,
            optimizer,
            update_num,
            ignore_grad,
        )
        result = self._run_step(step, model, criterion)
        # With gathered negatives, the criterion has called `agree` already.
        gathers = self.loss.config.gather_negatives
        if not gathers and self.nonfinite.agree():
            optimizer.zero_grad()
        return result

    def _run_step(
        self, step: Callable[[], Any], model: nn.Module, criterion: Any
    ) -> Any:
        """Returns step(), in smaller chunks if memory is short."""
        if not isinstance(self.model, MMFusionSeparate):
            return step()
        chunk = self.model.chunk_in_training
        if self.loss.config.gather_negatives and self.world.size > 1:
            try:
                return step()
            except torch.OutOfMemoryError as error:
                raise chunk.failure(error, GATHERED) from error
        parameters = [*model.parameters(), *criterion.parameters()]
        return step_in_memory(step, chunk, parameters, parameters[0].device)

    def optimizer_step(self, optimizer: Any, model: nn.Module, update_num: int) -> None:
        """Updates the weights, unless the update is skipped because a loss is not finite."""
        if not self.nonfinite.take_skipped():
            super().optimizer_step(optimizer, model, update_num)

    def _is_in_any(self, value: bool) -> bool:
        """Returns True in all processes if at least one of them passes True."""
        if self.world.size == 1:
            return value
        assert self.model is not None
        device = next(self.model.parameters()).device
        flag = torch.tensor([float(value)], device=device)
        all_reduce(flag, group=get_global_group())
        return bool(flag.item() > 0)

    def handle_nonfinite(
        self, sample: dict[str, Any], error: NonFiniteLossError
    ) -> None:
        """Reports a batch whose loss is not finite, and marks its update to be skipped.

        Raises:
            NonFiniteLossError: updates are not skipped, or this is a validation.
        """
        message = self.describe_failure(str(error), sample)
        if not (self.nonfinite.skips and self.loss.training):
            raise NonFiniteLossError(message, error.output) from error
        self.nonfinite.mark()

    def describe_failure(
        self, message: str, sample: dict[str, Any] | None = None
    ) -> str:
        """Writes a file about a batch, by default the current one, and returns the message."""
        sample = self.sample if sample is None else sample
        return self.nonfinite.report(self.num_updates + 1, sample, message)

    # ---- methods that fairseqmmloop.py calls

    def begin_log(self, num_updates: int, *, is_due: bool) -> None:
        """Opens the logs of metrics of a run that has completed `num_updates`.

        Args:
            is_due: the validation of the last update has not been done.
        """
        if not self.world.is_main:
            return
        config = self.inner.config
        run = run_metadata(config, self.args.save_dir, num_updates)
        self.metrics_logs = [
            MetricsLog(self.args.save_dir, num_updates, is_valid_due=is_due),
            *open_loggers(config.loggers or (), run),
        ]
        run.write()
        atexit.register(self.end_logs)

    def end_logs(self) -> None:
        """Closes the logs, which pass on the metrics that they still hold."""
        logs, self.metrics_logs = self.metrics_logs, []
        for log in logs:
            log.close()

    def post_save(self, path: str, num_updates: int) -> None:
        """Notes the time. fairseq calls this in the process that has saved a checkpoint."""
        self.run.note_saved()

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """Returns what fairseq adds to a checkpoint's `extra_state`."""
        state = self.nonfinite.state_dict() | self.run.state_dict()
        return {STATE: state | fairseqmmloop.state_of_loop()}

    def set_checkpoint_dict(self, state: dict[str, Any]) -> None:
        """Restores the state of the task from a checkpoint."""
        self.nonfinite.load_state_dict(state)
        self.run.load_state_dict(state)
        fairseqmmloop.restore_loop(state)

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        """Stores the number of the epoch that begins."""
        super().begin_epoch(epoch, model)
        self.epoch = epoch

    def reduce_metrics(
        self, logging_outputs: list[dict[str, Any]], criterion: Any
    ) -> None:
        """Aggregates metrics as fairseq does. Writes training metrics at every log interval."""
        super().reduce_metrics(logging_outputs, criterion)
        if self.run.update_stop_request(logging_outputs) and not criterion.training:
            raise fairseqmmloop.StoppedInValidationError
        if criterion.training and not self.has_updated:
            self.has_updated = True
            logger.info(
                "first update done; metrics every %d updates", self.args.log_interval
            )
        if criterion.training and self.batches is not None:
            left = self._minutes_left(self.batches)
            metrics.log_scalar("minutes_left", left, weight=0, priority=96, round=1)
        update = self.num_updates + 1  # fairseq has just completed it
        if criterion.training and update % self.args.log_interval == 0:
            self._log_metrics(
                "train", update, metrics.get_smoothed_values("train_inner")
            )

    def post_validate(self, model: nn.Module, stats: dict[str, Any], agg: Any) -> None:
        """Writes the metrics of a validation. fairseq calls this after each validation."""
        self._log_metrics("valid", stats["num_updates"], stats)

    def _log_metrics(self, split: str, update: int, stats: dict[str, Any]) -> None:
        values = known_metrics(stats)
        values.pop("num_updates", None)
        for log in self.metrics_logs:
            log.append(split, self.epoch, update, values)

    def _minutes_left(self, batches: PlannedBatchIterator) -> float:
        """Returns the estimated minutes to the end of the run.

        The estimate is 0 at the first update, and if the run has no end.
        """
        epochs = batches.epoch - 1 + batches.iterations_in_epoch / len(batches)
        updates = self.num_updates + 1
        done = share_done(epochs, self.args.max_epoch, updates, self.args.max_update)
        now = time.monotonic()
        if self.start is None:
            self.start = done, now
        done_at_start, begin = self.start
        return minutes_left(done, done_at_start, now - begin)


def run_metadata(
    config: RunConfig, save_dir: str | Path, num_updates: int
) -> RunMetadata:
    """Returns the metadata of a run that has completed `num_updates`."""
    settings = config.to_dict() | {"git_commit": os.environ.get(COMMIT)}
    info = find_feature_info(config.dataset)
    features = info.model_dump() if info else None
    return RunMetadata(Path(save_dir), num_updates, settings, features)
