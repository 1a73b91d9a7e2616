"""fairseq's task `mmtask`: reads the YAML, gives fairseq the data sets, the model and the loss, and
plans the batches of each epoch.

A user's mistake ends the process with one message and exit code 2, wherever in fairseq it is
raised. An exception hook finds it in the chain of exceptions that fairseq wraps around it.
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
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from fairseq.distributed.utils import _TensorPlaceholder
from fairseq.logging import metrics
from fairseq.tasks import LegacyFairseqTask, register_task
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode
from torch import nn

import mmpt.losses.fairseqmmloss
import mmpt.models.fairseqmmmodel  # noqa: F401  fairseq finds both by name once they are registered
from mmpt.batch import Split
from mmpt.config import load_config
from mmpt.datasets.fairseqmmdataset import FairseqMMDataset
from mmpt.errors import EXIT_CODE, UserError, causes_of, message_of
from mmpt.models.checkpoint import Use, check_optimizer_state
from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.modules.chunks import step_in_memory
from mmpt.tasks.fairseqmmiterator import PlannedBatchIterator
from mmpt.tasks.retritask import RetriTask
from mmpt.tasks.task import Task
from mmpt.utils.distributed import World
from mmpt.utils.io import DISK_FULL, write_error
from mmpt.utils.killed import worker_failure
from mmpt.utils.log import get_logger
from mmpt.utils.metrics_log import MetricsLog

logger = get_logger(__name__)
LAST_CHECKPOINT = "checkpoint_last.pt"
PASSED_ON = "seed num_shards shard_id num_workers skip_remainder_batch grouped_shuffling"
"""Arguments of `get_batch_iterator` that fairseq's iterator takes by the same names."""
NOT_FLAT = ("bf16", "memory_efficient_fp16", "memory_efficient_bf16", "fp16_no_flatten_grads")
"""Options with which fairseq trains each parameter by itself, as in float32. With `fp16` alone it
joins all parameters to one."""
GATHERED = (
    "With `loss.gather_negatives` the processes wait for each other in a step, so that none can "
    "repeat it alone: set `model.checkpoint_activations` to a number of clips (for example 64), or "
    "to a smaller one."
)
LOST_PEER = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Socket closed|socket has been closed|TCPStore"
)

# Rank 0 sends a checkpoint to the others, with fairseq's settings as OmegaConf objects.
SETTINGS: list[Any] = [DictConfig, ListConfig, AnyNode, ContainerMetadata, Metadata]
PLAIN: list[Any] = [defaultdict, dict, list, int, Any, _TensorPlaceholder]
torch.serialization.add_safe_globals([*SETTINGS, *PLAIN])


@register_task("mmtask")
class FairseqMMTask(LegacyFairseqTask):
    """An adapter between fairseq and `inner`, the `Task` that the YAML names."""

    @staticmethod
    def add_args(parser: argparse.ArgumentParser) -> None:
        """Adds the one positional argument."""
        parser.add_argument("taskconfig", metavar="FILE", help="YAML that describes the run")

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        config = load_config(args.taskconfig)
        self.world = World.current()
        self.inner = Task.from_config(config, seed=args.seed)
        self.loss = self.inner.build_loss()
        self.model: nn.Module | None = None
        self.batches: PlannedBatchIterator | None = None  # of the current epoch's training
        self.num_updates = 0  # completed before the current update
        self.epoch = 1
        self.metrics_log: MetricsLog | None = None  # in the main process, from the first step on
        self.start: tuple[float, float] | None = None  # (share of the run that is done, time)
        self.has_updated = False  # in this process

    @classmethod
    def setup_task(cls, args: argparse.Namespace, **kwargs: Any) -> FairseqMMTask:
        """Returns the task, and installs the exception hook that reports the user's mistakes."""
        sys.excepthook = partial(_report_user_error, args)
        atexit.register(_leave_process_group)
        if not World.current().is_main:  # rank 0 logs messages that are the same in every process
            logging.getLogger("mmpt").setLevel(logging.ERROR)
        return cls(args)

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
        if args.restore_file == LAST_CHECKPOINT:
            path = Path(args.save_dir) / LAST_CHECKPOINT
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
        """Returns fairseq's iterator, or for planned training batches a `PlannedBatchIterator`.

        The plan of an epoch is made when its first batch is needed. By then the checkpoint has been
        loaded. If an interrupted epoch continues, its plan is read instead of computed.
        """
        if not (dataset.training and isinstance(self.inner, RetriTask)):
            return super().get_batch_iterator(dataset, **kwargs)
        assert self.model is not None, "fairseq builds the model before it asks for batches"
        dataset.set_epoch(kwargs["epoch"])
        self.batches = PlannedBatchIterator(
            dataset,
            plan=partial(self.inner.plan_epoch, dataset.dataset, self.model, world=self.world),
            epoch=kwargs["epoch"],
            batch_size=kwargs["max_sentences"] or 1,
            buffer_size=kwargs["data_buffer_size"],
            **{name: kwargs[name] for name in PASSED_ON.split()},
        )
        return self.batches

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
        self.num_updates = update_num
        if self.metrics_log is None and self.world.is_main:
            self.metrics_log = MetricsLog(self.args.save_dir, update_num)
        # fairseq's train_step calls criterion(model, sample).
        criterion_of_step = partial(criterion, is_dummy_step=ignore_grad)
        step = partial(
            super().train_step, sample, model, criterion_of_step, optimizer, update_num, ignore_grad
        )
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

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        """Stores the number of the epoch that begins."""
        super().begin_epoch(epoch, model)
        self.epoch = epoch

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Aggregates metrics as fairseq does. Writes training metrics at every log interval."""
        super().reduce_metrics(logging_outputs, criterion)
        if criterion.training and not self.has_updated:
            self.has_updated = True
            logger.info("first update done; metrics every %d updates", self.args.log_interval)
        if criterion.training and self.batches is not None:
            left = self._minutes_left(self.batches)
            metrics.log_scalar("minutes_left", left, weight=0, priority=96, round=1)
        update = self.num_updates + 1  # fairseq has just completed it
        if criterion.training and update % self.args.log_interval == 0:
            self._log_metrics("train", update, metrics.get_smoothed_values("train_inner"))

    def post_validate(self, model: nn.Module, stats: dict[str, Any], agg: Any) -> None:
        """Writes the metrics of a validation. fairseq calls this after each validation."""
        self._log_metrics("valid", stats["num_updates"], stats)

    def _log_metrics(self, split: str, update: int, stats: dict[str, Any]) -> None:
        if self.metrics_log is not None:
            known = [name for name in stats if stats[name] is not None and name != "num_updates"]
            values = {name: float(stats[name]) for name in known}
            self.metrics_log.append(split, self.epoch, update, values)

    def _minutes_left(self, batches: PlannedBatchIterator) -> float:
        """Returns the estimated minutes to the end of the run.

        The estimate is 0 at the first update, and if the run has no end.
        """
        shares = [0.0]
        if self.args.max_epoch:
            epochs = batches.epoch - 1 + batches.iterations_in_epoch / len(batches)
            shares.append(epochs / self.args.max_epoch)
        if self.args.max_update:
            shares.append((self.num_updates + 1) / self.args.max_update)
        done, now = max(shares), time.monotonic()
        if self.start is None:
            self.start = done, now
        earlier, begin = self.start
        return (now - begin) / 60 * (1 - done) / (done - earlier) if done > earlier else 0.0


def _report_user_error(
    args: argparse.Namespace,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Prints a user's mistake without a traceback, and exits with code 2. An exception hook.

    Other exceptions are printed as usual.
    """
    cause = next(filter(_is_from_user, causes_of(error)), None)
    sys.stdout.flush()
    if isinstance(cause, UserError):
        message = message_of(cause)
    elif failure := worker_failure(error):
        message = str(failure)
    elif isinstance(cause, OSError):
        if World.current().is_main:
            _finish_checkpoints(args, cause)
        message = str(write_error(cause, cause.filename2 or cause.filename or args.save_dir))
    elif World.current().size > 1 and LOST_PEER.search(str(error)):
        # This process fails only because another one of the group has failed.
        sys.stderr.write("error: another process of this run has ended.\n")
        raise SystemExit(1)
    else:
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(EXIT_CODE)


def _is_from_user(error: BaseException) -> bool:
    """Returns True for a user's mistake and for a full disk."""
    is_disk_full = isinstance(error, OSError) and error.errno in DISK_FULL
    return isinstance(error, UserError) or is_disk_full


def _finish_checkpoints(args: argparse.Namespace, full_disk: OSError) -> None:
    """Leaves no incomplete checkpoint after the disk was full.

    A checkpoint that was being written is removed. fairseq writes a checkpoint once and copies it
    to its other names; if a copy is incomplete, the original takes its place. If there is no
    `checkpoint_last.pt` yet, the original becomes it, so that a rerun continues from there.

    Only the process that writes checkpoints may do this. The launcher keeps other trainings out of
    the folder.
    """
    save_dir = Path(args.save_dir)
    last = save_dir / LAST_CHECKPOINT
    for path in save_dir.glob("checkpoint*.pt.tmp"):
        path.unlink()
    source, copy = full_disk.filename, full_disk.filename2
    if copy is not None and Path(copy).parent == save_dir and Path(source).exists():
        os.replace(source, copy)  # needs no space
        if not last.exists() and not args.no_last_checkpoints:
            os.replace(copy, last)


def _leave_process_group() -> None:
    """Closes a gloo group, whose threads could otherwise abort the process as it exits.

    Other groups are left alone: NCCL could wait for the other processes.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
