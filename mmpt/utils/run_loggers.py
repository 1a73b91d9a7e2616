"""Sends the metrics of a training run to the services that `loggers` of a YAML names.

Each service gets the values of `metrics.jsonl`, by update. It also gets the name of the run, its
settings and the commit of the code. If a training run continues after an interruption, its run in
the service continues, too. Each service reads its own environment variables, such as WANDB_MODE or
TRACKIO_DIR.
"""

import json
import logging
import math
import os
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from textwrap import indent
from typing import Any

import mmpt
from mmpt.errors import LaunchError
from mmpt.utils.help_pages import install_command
from mmpt.utils.io import read_json, write_json
from mmpt.utils.log import ON_SCREEN, get_logger

logger = get_logger(__name__)

IDS = "loggers.json"
"""File of a `save_dir` with the ids that the services have given to the run."""
RUN_METADATA = "run.json"
"""File of a `save_dir` with the values that `RunMetadata.write` writes."""
COMMIT = "MMPT_COMMIT"
"""Variable with the git commit of the current folder."""
PROJECT = "mmpt"
"""Name of the project in which services put runs, unless their own variable names another."""


@dataclass(frozen=True)
class RunMetadata:
    """The metadata of a training run that tracking services receive."""

    save_dir: Path
    """Folder of the run."""
    num_updates: int
    """Number of completed updates. 0: the run is new."""
    settings: dict[str, Any]
    """All settings, and the git commit."""
    features: dict[str, Any] | None = None
    """Content of `features.json` of the features. None: there is no such file."""

    @property
    def name(self) -> str:
        """Name of the run: the last two folders of `save_dir`."""
        return "/".join(self.save_dir.absolute().parts[-2:])

    def write(self) -> None:
        """Writes the name of the run, the version and git commit of the code, and the features.

        A run that continues keeps what it knew about the features, if their folder is gone.
        """
        path = self.save_dir / RUN_METADATA
        features = self.features
        if features is None and self.num_updates > 0 and path.exists():
            features = read_json(path).get("features")
        metadata = {
            "name": self.name,
            "mmpt": mmpt.__version__,
            "git_commit": self.settings["git_commit"],
            "features": features,
        }
        write_json(path, metadata)

    def read_id(self, service: str) -> str | None:
        """Returns the id that a service has given to this run, or None for a new run."""
        path = self.save_dir / IDS
        if self.num_updates == 0 or not path.exists():
            return None
        known: str | None = read_json(path).get(service)
        return known

    def write_id(self, service: str, value: str) -> None:
        """Stores the id that a service has given to this run."""
        path = self.save_dir / IDS
        ids = read_json(path) if path.exists() else {}
        write_json(path, ids | {service: value})


class RunLogger:
    """An experiment-tracking service. If it fails, it gets no more metrics, and training continues.

    Args:
        run: the training run.
    """

    name: str
    package: str

    def __init__(self, run: RunMetadata):
        self._is_open = True

    def append(
        self, split: str, epoch: int, update: int, metrics: Mapping[str, float]
    ) -> None:
        """Passes metrics on, except for those that are not finite.

        Args:
            split: `train` or `valid`.
            epoch: the epoch, counted from 1.
            update: number of completed updates.
            metrics: values by name.
        """
        finite = {}
        for name, value in metrics.items():
            if math.isfinite(value):
                finite[name] = value
        if not self._is_open:
            return
        try:
            self._write(split, epoch, update, finite)
        except Exception as err:  # third-party code may raise any exception
            self._is_open = False
            logger.warning("%s failed and gets no more metrics: %s", self.name, err)

    def close(self) -> None:
        """Passes on what is left, at the end of the run."""
        try:
            self._close()
        except Exception as err:
            logger.warning(
                "%s may lack the last metrics, as it failed: %s", self.name, err
            )

    def _write(
        self, split: str, epoch: int, update: int, metrics: Mapping[str, float]
    ) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class TensorBoard(RunLogger):
    """Curves in `<save_dir>/tensorboard`, one folder per split, so that they share a chart."""

    name, package = "tensorboard", "tensorboardX"

    def __init__(self, run: RunMetadata):
        super().__init__(run)
        import tensorboardX  # deferred, like all services: optional

        # Later points of an interrupted run are hidden.
        purge = run.num_updates + 1 if run.num_updates else None
        self._writers = {}
        for split in ("train", "valid"):
            folder = str(run.save_dir / "tensorboard" / split)
            self._writers[split] = tensorboardX.SummaryWriter(
                folder, purge_step=purge, filename_suffix=f".{run.num_updates}"
            )
        text = json.dumps(run.settings, indent=2)
        # Four spaces make it a block of code.
        self._writers["train"].add_text(run.name, indent(text, "    "), run.num_updates)

    def _write(
        self, split: str, epoch: int, update: int, metrics: Mapping[str, float]
    ) -> None:
        writer = self._writers[split]
        for name, value in metrics.items():
            writer.add_scalar(name, value, update)
        writer.flush()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class WeightsAndBiases(RunLogger):
    """A run of Weights & Biases, with the update as the axis of all charts."""

    name = package = "wandb"

    def __init__(self, run: RunMetadata):
        super().__init__(run)
        import wandb

        known = run.read_id(self.name)
        # Otherwise wandb advertises W&B Weave on the screen if transformers is imported.
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", run.name),
            id=known or uuid.uuid4().hex[:8],
            resume="allow" if known else None,
            dir=run.save_dir,
            config=run.settings,
            # wandb must not write to the screen of the training run.
            settings=wandb.Settings(console="off", silent=True),
        )
        run.write_id(self.name, self._run.id)
        # W&B's own step must not go back, but a run that continues repeats updates.
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")
        where = self._run.dir if self._run.offline else self._run.url
        logger.info("Weights & Biases: %s", where, extra=ON_SCREEN)

    def _write(
        self, split: str, epoch: int, update: int, metrics: Mapping[str, float]
    ) -> None:
        values = {f"{split}/{name}": value for name, value in metrics.items()}
        self._run.log({**values, "epoch": epoch, "update": update})

    def _close(self) -> None:
        import wandb

        try:
            self._run.finish()
        finally:
            # Its own process may still write, and would be killed at the end of the run.
            wandb.teardown()


class Trackio(RunLogger):
    """A run of Trackio, which finds it again by its name.

    The name ends with a random id, because two training runs may have folders of the same name.
    """

    name = package = "trackio"

    def __init__(self, run: RunMetadata):
        super().__init__(run)
        import trackio

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        known = run.read_id(self.name)
        name = known or f"{run.name} {secrets.token_hex(3)}"
        run.write_id(self.name, name)
        with _printed_to_log():
            self._run = trackio.init(
                project=project,
                name=name,
                config=run.settings,
                resume="never" if known is None else "allow",
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        how = f"trackio show --project {project}"
        logger.info("Trackio: to see the curves, run `%s`", how, extra=ON_SCREEN)

    def _write(
        self, split: str, epoch: int, update: int, metrics: Mapping[str, float]
    ) -> None:
        values = {f"{split}/{name}": value for name, value in metrics.items()}
        self._run.log({**values, "epoch": epoch}, step=update)

    def _close(self) -> None:
        import trackio

        with _printed_to_log():
            # `Run.finish` would not be enough: Trackio would finish the run once more at the exit
            # of the process, and print on the screen.
            trackio.finish()


class Aim(RunLogger):
    """A run of Aim, in the repository `.aim` of the current folder or of one above it."""

    name = package = "aim"

    def __init__(self, run: RunMetadata):
        super().__init__(run)
        import aim

        known = run.read_id(self.name)
        # A run that was killed has left its lock. No other process uses it, because the launcher
        # locks the run's folder (`mmpt.config.run.LOCK_NAME`).
        logging.getLogger("aim.sdk.lock_manager").setLevel(logging.ERROR)
        self._run = aim.Run(
            known,
            experiment=PROJECT,
            force_resume=known is not None,
            system_tracking_interval=None,
            capture_terminal_logs=False,
        )
        run.write_id(self.name, self._run.hash)
        self._run.name = run.name
        self._run["settings"] = run.settings

    def _write(
        self, split: str, epoch: int, update: int, metrics: Mapping[str, float]
    ) -> None:
        context = {"subset": split}
        for name, value in metrics.items():
            self._run.track(value, name, step=update, epoch=epoch, context=context)

    def _close(self) -> None:
        self._run.close()


@contextmanager
def _printed_to_log() -> Iterator[None]:
    """Logs what the block prints, instead of printing it."""
    text = StringIO()
    with redirect_stdout(text):
        yield
    for line in text.getvalue().splitlines():
        logger.info("%s", line)


_CLASSES: tuple[type[RunLogger], ...] = (TensorBoard, WeightsAndBiases, Trackio, Aim)
SERVICES = {each.name: each for each in _CLASSES}
"""The services by the names that a YAML uses."""


def check_packages(names: Sequence[str]) -> None:
    """Raises LaunchError if the package of a service is not installed."""
    for name in names:
        package = SERVICES[name].package
        if find_spec(package) is None:
            extra = "train" if name == TensorBoard.name else name
            raise LaunchError(
                f"`loggers` names {name}, but the package {package} is not installed. Install it "
                f"with: {install_command(extra)}"
            )


def open_loggers(names: Sequence[str], run: RunMetadata) -> list[RunLogger]:
    """Starts or continues the run of each service.

    Args:
        names: the services.
        run: the training run.
    Raises:
        LaunchError: a service cannot start, for example because nobody is logged in.
    """
    loggers = []
    for name in names:
        try:
            loggers.append(SERVICES[name](run))
        except Exception as err:  # third-party code may raise any exception
            raise LaunchError(
                f"`loggers`: {name} cannot start: {err}. Fix that, or leave it out."
            ) from err
    return loggers
