"""The agreement of the processes of a job, at its start: all run the command line of rank 0, with
the same code and settings, on the same `save_dir`.
"""

import hashlib
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import mmpt
from mmpt.config import RunConfig
from mmpt.errors import LaunchError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

CONFIG_VARIABLE = "MMPT_CONFIG_FINGERPRINT"
"""Variable that passes the fingerprint of the settings from the launcher to its processes."""
READ_S = 10.0
"""Longest time that rank 0 waits for the others to read a message."""
SHARED_S = 60.0
"""Longest time until a network file system shows a new file on every machine."""

REMEDIES = {
    "code": "install the same version of mmpt",
    "torch": "install the same version of torch",
    "settings": "start the same command with the same YAML",
    "save_dir": "use a `fairseq.checkpoint.save_dir` on a file system that all nodes share",
}
"""Name of a fact that must be the same everywhere -> remedy if it is not."""


def config_fingerprint(config: RunConfig) -> str:
    """Returns a hash of all settings."""
    return _hash(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())


def code_fingerprint() -> str:
    """Returns a hash of the Python files of this package."""
    package = Path(mmpt.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(
            f"{path.relative_to(package)} {_hash(path.read_bytes())}\n".encode()
        )
    return digest.hexdigest()


def open_store() -> "Store":
    """Returns the store that torchrun's variables name. Processes pass each other values in it."""
    import torch.distributed  # deferred: seconds

    store, _, _ = next(torch.distributed.rendezvous("env://"))  # type: ignore[attr-defined]
    return store


def agree(
    store: "Store", rank: int, size: int, command: Sequence[str], settings: str
) -> list[str]:
    """Returns the command line of rank 0, when all processes have the same facts.

    All processes call this at their start.

    Args:
        store: what `open_store` returns.
        rank: number of this process.
        size: number of processes.
        command: the command line of this process. Only that of rank 0 is used.
        settings: fingerprint of the settings of this process.
    Raises:
        LaunchError: a process has other facts than rank 0. It is raised in every process.
    """
    if rank == 0:
        store.set("mmpt/command", json.dumps([list(command), _saved_config(command)]))
    command, saved_config = json.loads(store.get("mmpt/command"))
    facts = {
        "code": code_fingerprint(),
        "torch": version("torch"),
        "settings": settings,
    }
    facts |= {
        "save_dir": _wait_for(saved_config, command),
        "host": socket.gethostname(),
    }
    store.set(f"mmpt/facts/{rank}", json.dumps(facts))
    if rank == 0:
        all_facts = [
            json.loads(store.get(f"mmpt/facts/{rank}")) for rank in range(size)
        ]
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
    """Yields a line for everything in which ranks differ from rank 0, from the facts by rank."""
    for name, remedy in REMEDIES.items():
        hosts: dict[str, list[str]] = {}  # of the ranks that differ
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


def _wait_for(saved_config: str, command: Sequence[str]) -> str:
    """Returns `_saved_config` of this machine, when it is that of rank 0 or after a minute."""
    deadline = time.monotonic() + SHARED_S
    while (
        own := _saved_config(command)
    ) != saved_config and time.monotonic() < deadline:
        time.sleep(1)
    return own


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
