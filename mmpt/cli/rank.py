"""The work of one training process. It finds its rank, agrees with the other processes on the
command line of fairseq, and runs fairseq.

The processes of a job on several machines must have the same code and settings, and the same
`save_dir`.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import mmpt
from mmpt.cli.job import CONFIG_VARIABLE, continued, prepare
from mmpt.cli.main import num_cores
from mmpt.config import load_config
from mmpt.config.yaml_files import YAML_SUFFIXES
from mmpt.errors import EXIT_CODE, LaunchError, UserError, message_of
from mmpt.utils.log import ON_SCREEN, get_logger
from mmpt.utils.run_loggers import COMMIT
from mmpt.utils.screen import TRAIN_LOG, Screen, start_log

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

logger = get_logger(__name__)

EXIT_WAIT_S = 10.0
"""Seconds that a process waits for the launcher to end it, after another one has reported a
mistake."""
READ_S = 10.0
"""Longest time that rank 0 waits for the others to read a message."""
FILE_SYNC_S = 60.0
"""Longest time until a network file system shows a new file on every machine."""

REMEDIES = {
    "code": "install the same version of mmpt",
    "torch": "install the same version of torch",
    "settings": "start the same command with the same YAML",
    "save_dir": "use a `fairseq.checkpoint.save_dir` on a file system that all nodes share",
}
"""Name of a fact that must be the same everywhere -> remedy if it is not."""


@dataclass(frozen=True)
class ProcessRank:
    """The rank of this process and the world size. The defaults describe a single process."""

    rank: int = 0
    """Number of this process among all processes."""
    world_size: int = 1
    """Number of processes on all machines."""
    local_rank: int = 0
    """Number of this process on this machine."""
    local_size: int = 1
    """Number of processes on this machine."""

    @classmethod
    def from_environment(cls) -> "ProcessRank":
        """Returns the rank that torchrun's variables describe.

        Without LOCAL_RANK and LOCAL_WORLD_SIZE, all processes run on this machine.
        """
        if "RANK" not in os.environ:
            return cls()
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        return cls(rank, world_size, local_rank, local_size)

    @property
    def has_other_nodes(self) -> bool:
        """True if processes of the job run on other machines."""
        return self.world_size > self.local_size


def main(argv: Sequence[str], name: str | None = None) -> int:
    """Trains in this process and returns the exit code.

    A mistake is reported by the first process of each machine. The other processes report nothing,
    and wait until the launcher ends them.

    Args:
        argv: a YAML and overrides, or the command line of fairseq that the launcher has made.
        name: name of the command. Not used.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the launcher reports it
    process = ProcessRank.from_environment()
    with ExitStack() as held:
        try:
            command = _prepare(process, argv, held)
            screen = _start_log(command, process.rank)
        except UserError as err:
            if process.local_rank > 0:
                time.sleep(EXIT_WAIT_S)
            else:
                sys.stderr.write(f"error: {message_of(err)}\n")
            return EXIT_CODE
        set_environment(process, on_cpu="--cpu" in command)
        # deferred: takes seconds, unless this process was forked
        from mmpt.tasks.fairseqmmloop import run_fairseq

        flags = rank_flags(process, on_cpu="--cpu" in command)
        run_fairseq([*command, *flags], screen)
    return 0


def _start_log(command: Sequence[str], rank: int) -> Screen | None:
    """Starts the log of this process, and returns its screen, if it has one."""
    save_dir = command[command.index("--save-dir") + 1]
    is_plain = not {"--log-format", "--no-progress-bar"}.isdisjoint(command)
    screen = start_log(save_dir, rank, may_draw=not is_plain)
    if rank == 0:
        path = os.path.join(save_dir, TRAIN_LOG)
        logger.info("the whole log is in %s", path, extra=ON_SCREEN)
        os.environ[COMMIT] = git_commit()
        logger.info("git commit: %s", os.environ[COMMIT])
    return screen


def git_commit() -> str:
    """Returns the commit of the current folder, else that of MMPT's code, else `unknown`."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    for folder in (".", os.path.dirname(mmpt.__file__)):
        with suppress(OSError):  # there is no git
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return done.stdout.strip()
    return "unknown"


def _prepare(process: ProcessRank, argv: Sequence[str], held: ExitStack) -> list[str]:
    """Returns the command line of fairseq, without the flags of this process.

    `held` keeps the lock of `save_dir`, and the store through which the processes agree.
    """
    is_yaml = bool(argv) and argv[0].endswith(YAML_SUFFIXES)
    if is_yaml:
        command, settings = prepare_rank(process, argv, held)
    else:
        command, settings = list(argv), os.environ.get(CONFIG_VARIABLE, "")
    command = continued(command)
    if process.has_other_nodes or (is_yaml and process.world_size > 1):
        # The process group uses the store, too, so it must not be closed here.
        store = held.enter_context(nullcontext(open_store()))
        command = agree(store, process.rank, process.world_size, command, settings)
    return command


def prepare_rank(
    process: ProcessRank, argv: Sequence[str], held: ExitStack
) -> tuple[list[str], str]:
    """Returns fairseq's command line for a YAML and overrides, and the settings' fingerprint.

    Only rank 0 makes the command line. It is empty in the other ranks. `held` keeps the lock of
    `save_dir`.
    """
    path, *overrides = argv
    config = load_config(path, overrides)
    if config.is_test:
        raise LaunchError(f"{path} is an evaluation config; run `mmpt train {path}`.")
    command: list[str] = []
    if process.rank == 0:
        command = prepare(
            config, process.local_size, process.world_size, bool(overrides), held
        )
    return command, config.fingerprint


def rank_flags(process: ProcessRank, *, on_cpu: bool) -> list[str]:
    """Returns fairseq's options for this process.

    They override the number of processes in the command line of rank 0. With `--nnodes 1:4`, that
    is the largest possible number.
    """
    if process.world_size == 1:
        return ["--distributed-world-size", "1"]
    flags = ["--distributed-init-method", "env://", "--distributed-no-spawn"]
    flags += [
        "--distributed-rank",
        str(process.rank),
        "--distributed-world-size",
        str(process.world_size),
    ]
    return flags if on_cpu else [*flags, "--device-id", str(process.local_rank)]


def set_environment(process: ProcessRank, *, on_cpu: bool) -> None:
    """Gives this process its share of the cores, and chooses the network interface.

    Variables that the user has set are kept.
    """
    import torch  # deferred: takes seconds

    if on_cpu:
        # fairseq touches every GPU that it sees.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if process.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
            threads = max(num_cores() // process.local_size, 1)
            os.environ["OMP_NUM_THREADS"] = str(threads)
            torch.set_num_threads(threads)
    if (
        process.world_size > 1
        and "GLOO_SOCKET_IFNAME" not in os.environ
        and sys.platform == "linux"
    ):
        # Gloo would look up the name of this machine, which need not resolve to a usable address.
        host = os.environ["MASTER_ADDR"]
        interface = interface_towards(host) if process.has_other_nodes else "lo"
        if interface:
            os.environ["GLOO_SOCKET_IFNAME"] = interface


def interface_towards(host: str) -> str | None:
    """Returns the network interface that reaches another machine; None if it is not known."""
    with suppress(OSError):
        family, kind, _, _, address = socket.getaddrinfo(
            host, 9, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing
            own = probe.getsockname()[0]
        for name, addresses in psutil.net_if_addrs().items():
            if name != "lo" and own in [each.address for each in addresses]:
                return name
    return None


def open_store() -> "Store":
    """Returns the store that torchrun's variables name. Processes pass each other values in it."""
    import torch.distributed  # deferred: takes seconds

    store, _, _ = next(torch.distributed.rendezvous("env://"))  # type: ignore[attr-defined]
    return store


def agree(
    store: "Store",
    rank: int,
    size: int,
    command: Sequence[str],
    settings: str,
    file_sync_s: float = FILE_SYNC_S,
) -> list[str]:
    """Checks that all processes have the same code and settings, and returns rank 0's command line.

    All processes call this at their start.

    Args:
        store: what `open_store` returns.
        rank: number of this process.
        size: number of processes.
        command: the command line of this process. Only that of rank 0 is used.
        settings: fingerprint of the settings of this process.
        file_sync_s: longest time to wait until this machine sees the files of rank 0.
    Raises:
        LaunchError: a process differs from rank 0. It is raised in every process.
    """
    # 1. Rank 0 sends its command line to the others.
    if rank == 0:
        store.set("mmpt/command", json.dumps([list(command), _saved_config(command)]))
    command, saved_config = json.loads(store.get("mmpt/command"))
    # 2. Every rank describes itself.
    facts = {
        "code": code_fingerprint(),
        "torch": version("torch"),
        "settings": settings,
    }
    facts |= {
        "save_dir": _wait_for(saved_config, command, file_sync_s),
        "host": socket.gethostname(),
    }
    store.set(f"mmpt/facts/{rank}", json.dumps(facts))
    # 3. Rank 0 compares the descriptions, and sends the differences to the others.
    if rank == 0:
        texts = [store.get(f"mmpt/facts/{other}") for other in range(size)]
        all_facts = [json.loads(text) for text in texts]
        store.set("mmpt/differences", "\n".join(differences(all_facts)))
    if found := store.get("mmpt/differences").decode():
        # Rank 0 may own the store, so it waits until the others have read the message.
        store.set(f"mmpt/read/{rank}", "")
        if rank == 0:
            everyone = [f"mmpt/read/{other}" for other in range(size)]
            with suppress(RuntimeError):
                # Another rank has been killed, and will not answer.
                store.wait(everyone, timedelta(seconds=READ_S))
        raise LaunchError(
            "the processes of this job must have the same code and settings as rank 0, but these "
            f"differ:\n{found}"
        )
    return list(command)


def differences(facts: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yields a line for each fact that differs from rank 0's.

    Args:
        facts: for each rank, in order, the facts that `REMEDIES` names, and `host`.
    """
    for name, remedy in REMEDIES.items():
        hosts: dict[str, list[str]] = {}  # host -> its ranks that differ
        for rank, own in enumerate(facts):
            if own[name] != facts[0][name]:
                hosts.setdefault(own["host"], []).append(str(rank))
        if hosts:
            where = "; ".join(
                f"rank {', '.join(ranks)} on {host}" for host, ranks in hosts.items()
            )
            yield f"  - {name}: {where}. Rank 0 is on {facts[0]['host']}. To fix it, {remedy}."


def _saved_config(command: Sequence[str]) -> str:
    """Returns a hash of the `config.yaml` that rank 0 has written to `save_dir`, if it is there."""
    save_dir = command[command.index("--save-dir") + 1]
    try:
        return _hash(Path(save_dir, "config.yaml").read_bytes())
    except FileNotFoundError:
        return ""


def _wait_for(saved_config: str, command: Sequence[str], limit_s: float) -> str:
    """Waits until this machine sees the same `config.yaml` as rank 0, and returns its hash.

    After `limit_s` seconds, returns the hash of the file that this machine sees.

    Args:
        saved_config: the hash in rank 0.
    """
    deadline = time.monotonic() + limit_s
    own = _saved_config(command)
    while own != saved_config and time.monotonic() < deadline:
        time.sleep(1)
        own = _saved_config(command)
    return own


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def code_fingerprint() -> str:
    """Returns a hash of the Python files of this package."""
    package = Path(mmpt.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(
            f"{path.relative_to(package)} {_hash(path.read_bytes())}\n".encode()
        )
    return digest.hexdigest()
