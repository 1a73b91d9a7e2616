"""The work of one training process: it takes its place among the processes of the job, agrees with
the others on the command line of fairseq, and runs it.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass

import psutil

from mmpt.cli.agreement import CONFIG_VARIABLE, agree, config_fingerprint, open_store
from mmpt.config import load_config
from mmpt.config.run import RESETS
from mmpt.errors import EXIT_CODE, LaunchError, UserError, message_of

QUIET_S = 10.0
"""Seconds that a process waits for its end after a mistake that another process reports."""


@dataclass(frozen=True)
class Place:
    """The place of this process in its job. The defaults describe a process on its own."""

    rank: int = 0
    """Number of this process among all processes."""
    size: int = 1
    """Number of processes on all machines."""
    local_rank: int = 0
    """Number of this process on this machine."""
    local_size: int = 1
    """Number of processes on this machine."""

    @classmethod
    def from_environment(cls) -> "Place":
        """Returns the place that torchrun's variables name."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        if names[0] not in os.environ:
            return cls()
        size = os.environ["WORLD_SIZE"]
        return cls(*(int(os.environ.get(name, size)) for name in names))

    @property
    def has_other_nodes(self) -> bool:
        """True if processes of the job run on other machines."""
        return self.size > self.local_size


def main(words: Sequence[str], name: str | None = None) -> int:
    """Trains in this process and returns the exit code.

    A mistake is reported by the first process of each machine. The others wait for their end.

    Args:
        words: a YAML and overrides, or the command line of fairseq that the launcher has made.
        name: name of the command. Not used.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the launcher reports it
    place = Place.from_environment()
    with ExitStack() as held:
        try:
            command = _prepare(place, words, held)
        except UserError as err:
            if place.local_rank > 0:
                time.sleep(QUIET_S)
            else:
                sys.stderr.write(f"error: {message_of(err)}\n")
            return EXIT_CODE
        set_environment(place, on_cpu="--cpu" in command)
        # deferred: seconds, unless it is forked
        from mmpt.cli.fairseqmmtrain import train

        train([*command, *rank_flags(place, on_cpu="--cpu" in command)])
    return 0


def _prepare(place: Place, words: Sequence[str], held: ExitStack) -> list[str]:
    """Returns the command line of fairseq, without the flags of this process.

    `held` keeps other jobs from the folder, and the store open.
    """
    is_yaml = bool(words) and words[0].endswith((".yaml", ".yml"))
    if is_yaml:
        command, settings = prepare_rank(place, words, held)
    else:
        command, settings = list(words), os.environ.get(CONFIG_VARIABLE, "")
    command = continued(command)
    if place.has_other_nodes or (is_yaml and place.size > 1):
        # The process group uses it, too.
        store = held.enter_context(nullcontext(open_store()))
        command = agree(store, place.rank, place.size, command, settings)
    return command


def prepare_rank(
    place: Place, words: Sequence[str], held: ExitStack
) -> tuple[list[str], str]:
    """Returns the command line that rank 0 makes of a YAML and overrides, which is empty in other
    ranks, and the fingerprint of the settings. `held` keeps other jobs from the folder.
    """
    # deferred: not needed if the launcher has done it
    from mmpt.cli.launch import prepare

    path, *overrides = words
    config = load_config(path, overrides)
    if config.is_test:
        raise LaunchError(f"{path} is an evaluation config; run `mmpt train {path}`.")
    command: list[str] = []
    if place.rank == 0:
        command = prepare(config, place.local_size, place.size, bool(overrides), held)
    return command, config_fingerprint(config)


def continued(command: Sequence[str]) -> list[str]:
    """Returns a command line of fairseq without the options that would start a new run, if there is
    a checkpoint to continue from. After a failure, a job is started again with the same command.
    """
    words = list(command)
    save_dir = words[words.index("--save-dir") + 1] if "--save-dir" in words else ""
    if os.path.exists(os.path.join(save_dir, "checkpoint_last.pt")):
        for name in RESETS.split():
            flag = "--" + name.replace("_", "-")
            if flag in words:
                at = words.index(flag)
                del words[at : at + (2 if name == "restore_file" else 1)]
    return words


def rank_flags(place: Place, *, on_cpu: bool) -> list[str]:
    """Returns fairseq's options for this process. They replace the number of processes in a command
    line, because with `--nnodes 1:4` it is that of the largest job.
    """
    if place.size == 1:
        return ["--distributed-world-size", "1"]
    flags = ["--distributed-init-method", "env://", "--distributed-no-spawn"]
    flags += [
        "--distributed-rank",
        str(place.rank),
        "--distributed-world-size",
        str(place.size),
    ]
    return flags if on_cpu else [*flags, "--device-id", str(place.local_rank)]


def set_environment(place: Place, *, on_cpu: bool) -> None:
    """Gives this process its share of the cores, and chooses the network interface.

    Variables that the user has set are kept.
    """
    import torch  # deferred: seconds

    if on_cpu:
        # fairseq touches every GPU that it sees.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if place.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
            threads = max(num_cores() // place.local_size, 1)
            os.environ["OMP_NUM_THREADS"] = str(threads)
            torch.set_num_threads(threads)
    if (
        place.size > 1
        and "GLOO_SOCKET_IFNAME" not in os.environ
        and sys.platform == "linux"
    ):
        # Gloo would look up the name of this machine, which need not resolve to a usable address.
        host = os.environ["MASTER_ADDR"]
        interface = interface_towards(host) if place.has_other_nodes else "lo"
        if interface:
            os.environ["GLOO_SOCKET_IFNAME"] = interface


def num_cores() -> int:
    """Returns the number of cores that this process may use. SLURM and containers limit it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


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
