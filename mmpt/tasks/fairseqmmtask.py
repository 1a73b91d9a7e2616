"""fairseq's `mmtask`: reads the YAML, hands fairseq its data sets, and plans each epoch when its
batches are asked for.

The user's mistakes end the process with one message and exit code 2 wherever in fairseq they
surface: an exception hook finds them at the end of the chain of exceptions that fairseq wraps
around them.
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
from mmpt.tasks.fairseqmmiterator import PlannedBatchIterator
from mmpt.tasks.retritask import RetriTask
from mmpt.tasks.steps import step_in_memory
from mmpt.tasks.task import Task
from mmpt.utils.distributed import World
from mmpt.utils.io import DISK_FULL, write_error
from mmpt.utils.killed import worker_failure
from mmpt.utils.log import get_logger
from mmpt.utils.metrics_log import MetricsLog

logger = get_logger(__name__)
LAST_CHECKPOINT = "checkpoint_last.pt"
PASSED_ON = "seed num_shards shard_id num_workers skip_remainder_batch grouped_shuffling"
"""What fairseq's own iterator takes by the names that the task is called with."""
NOT_FLAT = ("bf16", "memory_efficient_fp16", "memory_efficient_bf16", "fp16_no_flatten_grads")
"""Options with which fairseq keeps parameters apart, as in float32; with `fp16` alone it makes one
of them all.
"""
GATHERED = (
    "With `loss.gather_negatives` the processes wait for each other in a step, so that none can "
    "repeat it alone: set `model.checkpoint_activations` to a number of clips (for example 64), or "
    "to a smaller one."
)
LOST_PEER = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Socket closed|socket has been closed|TCPStore"
)

# rank 0 sends a checkpoint to the others with fairseq's settings as omegaconf
SETTINGS: list[Any] = [DictConfig, ListConfig, AnyNode, ContainerMetadata, Metadata]
PLAIN: list[Any] = [defaultdict, dict, list, int, Any, _TensorPlaceholder]
torch.serialization.add_safe_globals([*SETTINGS, *PLAIN])


@register_task("mmtask")
class FairseqMMTask(LegacyFairseqTask):
    """The bridge between fairseq and `Task`, which does the work under the name `inner`."""

    @staticmethod
    def add_args(parser: argparse.ArgumentParser) -> None:
        """Add the one positional argument."""
        parser.add_argument("taskconfig", metavar="FILE", help="YAML that describes the run")

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        config = load_config(args.taskconfig)
        self.inner = Task.from_config(config, seed=args.seed)
        self.model: nn.Module | None = None
        self.batches: PlannedBatchIterator | None = None  # of this epoch's training
        self.num_updates = 0  # before the update at hand
        self.epoch = 1
        self.metrics_log: MetricsLog | None = None  # of the main process, from the first step on
        self.start: tuple[float, float] | None = None  # the share of the run done at what time
        self.has_updated = False  # in this process

    @classmethod
    def setup_task(cls, args: argparse.Namespace, **kwargs: Any) -> FairseqMMTask:
        """Build the task; from here on the user's mistakes end the process cleanly."""
        sys.excepthook = partial(_report_user_error, args)
        atexit.register(_leave_process_group)
        if not World.current().is_main:  # rank 0 logs what is the same in every process
            logging.getLogger("mmpt").setLevel(logging.ERROR)
        return cls(args)

    def build_inner_model(self) -> tuple[nn.Module, str, Use]:
        """Build the network, name the checkpoint that follows (without one, BERT's weights are
        read) and its use.

        Raises:
            CheckpointError: the checkpoint's optimizer state is not of today's parameters.
        """
        args = self.args
        path = Path(args.restore_file)  # the launcher has checked that there is such a file
        if args.restore_file == LAST_CHECKPOINT:
            path = Path(args.save_dir) / LAST_CHECKPOINT
        self.model = self.inner.build_model(pretrained=not path.is_file())
        if args.reset_optimizer:
            return self.model, str(path), Use.START
        if path.is_file() and World.current().is_main:
            parameters = chain(self.model.parameters(), self.inner.build_loss().parameters())
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            flat = args.fp16 and not any(getattr(args, name) for name in NOT_FLAT)
            check_optimizer_state(path, trained, flat=flat)
        return self.model, str(path), Use.RESUME

    def load_dataset(self, split: str, **kwargs: Any) -> None:
        """Build the data set called train, valid or test; one that the YAML does not name is
        skipped.

        Raises:
            ValueError: another name.
        """
        dataset = self.inner.build_dataset(Split(split))
        if dataset is not None:
            self.datasets[split] = FairseqMMDataset(dataset, training=split == "train")

    def get_batch_iterator(self, dataset: FairseqMMDataset, **kwargs: Any) -> Any:
        """Return fairseq's iterator, or for a training set with planned batches one that plans
        them.

        The plan of epoch e is made when the first batch of e is asked for: by then the checkpoint
        has said whether an interrupted epoch is to be continued, in which case its plan is read
        back instead of computed.
        """
        if not (dataset.training and isinstance(self.inner, RetriTask)):
            return super().get_batch_iterator(dataset, **kwargs)
        assert self.model is not None, "fairseq builds the model before it asks for batches"
        dataset.set_epoch(kwargs["epoch"])
        self.batches = PlannedBatchIterator(
            dataset,
            plan=partial(self.inner.plan_epoch, dataset.dataset, self.model, world=World.current()),
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

        Raises:
            DeviceMemoryError: the device is out of memory and chunks cannot be smaller, or other
                processes would have to repeat the step, too.
        """
        self.num_updates = update_num
        if self.metrics_log is None and World.current().is_main:
            self.metrics_log = MetricsLog(self.args.save_dir, update_num)
        criterion.loss.is_idle = ignore_grad
        step = partial(
            super().train_step, sample, model, criterion, optimizer, update_num, ignore_grad
        )
        if not isinstance(self.model, MMFusionSeparate):
            return step()
        chunk = self.model.chunk_in_training
        if criterion.loss.config.gather_negatives and World.current().size > 1:
            try:
                return step()
            except torch.OutOfMemoryError as error:
                raise chunk.failure(error, GATHERED) from error
        parameters = [*model.parameters(), *criterion.parameters()]
        return step_in_memory(step, chunk, parameters, parameters[0].device)

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        """Notes which epoch begins."""
        super().begin_epoch(epoch, model)
        self.epoch = epoch

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Aggregates metrics as fairseq does; writes those of training at every log interval."""
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
        """Writes the metrics of a validation; fairseq calls this after each."""
        self._log_metrics("valid", stats["num_updates"], stats)

    def _log_metrics(self, split: str, update: int, stats: dict[str, Any]) -> None:
        if self.metrics_log is not None:
            known = [name for name in stats if stats[name] is not None and name != "num_updates"]
            values = {name: float(stats[name]) for name in known}
            self.metrics_log.append(split, self.epoch, update, values)

    def _minutes_left(self, batches: PlannedBatchIterator) -> float:
        """Minutes to the end of the run at its pace so far; 0 at the first update, or without an
        end.
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
    """Exception hook: print a user's mistake without traceback and exit with code 2; show anything
    else as usual.
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
        # This process fails only because another one of the group has.
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
    """Leave no checkpoint cut short: what was being written goes, what was being copied takes the
    place of its copy.

    At the first save it becomes `checkpoint_last.pt`, from which a rerun goes on. Only the process
    that writes checkpoints may do this; the launcher keeps other trainings out of the folder.
    """
    save_dir = Path(args.save_dir)
    last = save_dir / LAST_CHECKPOINT
    for path in save_dir.glob("checkpoint*.pt.tmp"):
        path.unlink()
    source, copy = full_disk.filename, full_disk.filename2
    if copy is not None and Path(copy).parent == save_dir and Path(source).exists():
        os.replace(source, copy)  # takes no room
        if not last.exists() and not args.no_last_checkpoints:
            os.replace(copy, last)


def _leave_process_group() -> None:
    """Close a gloo group in order: its threads can abort an exiting process otherwise. (NCCL might
    wait for peers.)
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
