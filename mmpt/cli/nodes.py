"""The machines (nodes) of a job, described by options that are named as in `torchrun`."""

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mmpt.cli.endpoint import Answer, ask, listener
from mmpt.errors import LaunchError

DEFAULT_PORT = 29400
"""Port of an endpoint that names none, as for `torchrun`."""
TIMEOUT_S = 300
"""Default of `Nodes.timeout_s`."""
LAST_CALL_S = 30
"""Longest time to wait for more nodes once the smallest number of them is there."""


@dataclass(frozen=True)
class Nodes:
    """The machines (nodes) of a job, and how their launchers find each other."""

    smallest: int = 1
    """Smallest number of nodes that the job can run on."""
    largest: int = 1
    """Largest number of nodes that the job uses. Above `smallest`, nodes may join and leave."""
    rank: int | None = None
    """Number of this node. None: 0 on the machine of the endpoint, else unknown."""
    host: str = ""
    """Name or address of node 0, where the launchers meet."""
    port: int = DEFAULT_PORT
    """Port on that machine."""
    run_id: str = "mmpt"
    """Name of the job. It is the same on all nodes."""
    max_restarts: int = 0
    """Largest number of times that all processes are started again after a failure."""
    timeout_s: int = TIMEOUT_S
    """Longest time to wait for the other nodes, in seconds."""

    @classmethod
    def parse(
        cls,
        nnodes: str,
        rank: int | None,
        endpoint: str,
        run_id: str,
        restarts: int,
        timeout_s: int,
    ) -> "Nodes":
        """Returns the nodes that the options describe.

        Args:
            nnodes: `N`, or `SMALLEST:LARGEST`.
            rank: number of this node.
            endpoint: `host` or `host:port`.
            run_id: name of the job.
            restarts: value of `max_restarts`.
            timeout_s: longest time to wait for other nodes, in seconds.
        Raises:
            LaunchError: an option is wrong or missing.
        """
        numbers = re.fullmatch(r"(\d+)(?::(\d+))?", nnodes)
        smallest, largest = (
            (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (0, 0)
        )
        if not 1 <= smallest <= largest:
            raise LaunchError(
                f"--nnodes must be a number of machines, such as 2, or the smallest and the "
                f"largest number, such as 1:4, but is {nnodes}."
            )
        if rank is not None and not 0 <= rank < largest:
            raise LaunchError(
                f"--node-rank must be a number from 0 to {largest - 1} with --nnodes {nnodes}, but "
                f"is {rank}."
            )
        for name, value, least in (
            ("max-restarts", restarts, 0),
            ("rdzv-timeout", timeout_s, 1),
        ):
            if value < least:
                raise LaunchError(f"--{name} must be at least {least}, but is {value}.")
        found = re.fullmatch(r"([^:]*)(?::(\d{1,5}))?", endpoint)
        port = int(found[2] or DEFAULT_PORT) if found else 0
        if not (found and 0 < port < 1 << 16 and (found[1] or largest == 1)):
            raise LaunchError(
                f"--nnodes {nnodes} needs --rdzv-endpoint HOST:PORT, the machine of node 0 and a "
                f"free port on it, but it is {endpoint or 'not given'}."
            )
        return cls(smallest, largest, rank, found[1], port, run_id, restarts, timeout_s)

    @property
    def is_node_0(self) -> bool:
        """True on node 0, to which the other launchers connect.

        Node 0 also holds the lock of the `save_dir`.
        """
        if self.largest == 1:
            return True
        return _is_here(self.host) if self.rank is None else self.rank == 0

    def set_environment(self) -> None:
        """Sets variables that torch reads when it is imported or launches processes."""
        if self.largest > 1:
            # By default, the store is kept when processes are started again. They would then read
            # the addresses of the processes that have ended, and wait for these.
            os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
            # Hides torch's warnings about host names that cannot be looked up.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    def launch_settings(self) -> dict[str, Any]:
        """Returns the arguments of torch's `LaunchConfig` that concern the nodes."""
        settings: dict[str, Any] = {
            "min_nodes": self.smallest,
            "max_nodes": self.largest,
            "run_id": self.run_id,
            "max_restarts": self.max_restarts,
        }
        if self.largest == 1:
            return settings | {"rdzv_backend": "local"}
        # torch numbers the launchers in the order of `local_addr`. Node 0 must come first, because
        # its rank 0 writes the checkpoints. `~` sorts after all host names. torch connects to the
        # address of node 0 only, so the values of the other nodes need not be addresses.
        number = socket.gethostname() if self.rank is None else f"{self.rank:09}"
        waits = {"join_timeout": self.timeout_s, "read_timeout": self.timeout_s}
        # The last call, the wait for more nodes than the job needs, must end before the join times
        # out. After the loss of a node, a join takes 15 seconds more.
        waits["last_call_timeout"] = max(1, min(LAST_CALL_S, self.timeout_s // 4))
        return settings | {
            "rdzv_backend": "c10d",
            "rdzv_endpoint": f"{self.host}:{self.port}",
            "rdzv_configs": waits | {"is_host": self.is_node_0},
            "local_addr": self.host if self.is_node_0 else f"~{number}",
        }

    def torchrun_options(self) -> list[str]:
        """Returns the options of torchrun that describe the nodes."""
        restarts = (
            ["--max-restarts", str(self.max_restarts)] if self.max_restarts else []
        )
        if self.largest == 1:
            return ["--standalone", *restarts]
        is_fixed = self.smallest == self.largest
        numbers = f"{self.smallest}" if is_fixed else f"{self.smallest}:{self.largest}"
        options = [
            "--nnodes",
            numbers,
            "--rdzv-backend",
            "c10d",
            "--rdzv-id",
            self.run_id,
        ]
        return [*options, "--rdzv-endpoint", f"{self.host}:{self.port}", *restarts]

    @contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Turns the errors of torch's launcher, which runs in the block, into plain messages.

        Waits for node 0 before the block begins.

        Raises:
            LaunchError: the nodes do not find each other. The message names the endpoint.
            SystemExit: the connection to node 0 is lost, which is not the user's mistake.
        """
        from torch.distributed.elastic import rendezvous  # deferred: imports torch

        where = f"--rdzv-endpoint {self.host}:{self.port}"
        limit = f"within {self.timeout_s} s (--rdzv-timeout)"
        if not self.is_node_0:
            self._wait_for_node_0(where, limit)
        try:
            yield
        except rendezvous.RendezvousConnectionError as err:
            if self.is_node_0:
                raise LaunchError(
                    f"{where}: this machine cannot listen there for the other nodes. Choose "
                    "another port."
                ) from err
            sys.stderr.write(
                f"error: {where}: the connection to node 0 is lost. The job has ended there, or "
                "another program listens at this address.\n"
            )
            raise SystemExit(1) from err
        except rendezvous.RendezvousTimeoutError as err:
            raise LaunchError(
                f"{where}: fewer than {self.smallest} nodes joined {limit}. Start the same command "
                "on every node, each with its own --node-rank."
            ) from err
        except rendezvous.RendezvousError as err:
            raise LaunchError(
                f"{where}: the job has ended on the other nodes ({err})."
            ) from err

    def _wait_for_node_0(self, where: str, limit: str) -> None:
        """Waits until the launcher of node 0 answers.

        torch could also wait, but it would log each attempt.

        Raises:
            LaunchError: it does not answer, or another program does.
        """
        deadline = time.monotonic() + self.timeout_s
        advice = (
            "Check that the host is the machine of --node-rank 0, that the job has started there, "
            "and that no firewall closes the port."
        )
        while True:
            left_s = max(deadline - time.monotonic(), 1.0)
            try:
                answer, found = ask(self.host, self.port, left_s)
            except OSError as err:
                answer, found = Answer.CLOSED, err.strerror or str(err)
            if answer is Answer.LAUNCHER:
                return
            if answer is Answer.OTHER:
                name = listener(self.port) if _is_here(self.host) else ""
                name = f": {name}" if name else ""
                raise LaunchError(
                    f"{where}: another program, not the launcher of node 0, listens there{name}; "
                    f"{found}. Choose a free port of the machine of node 0."
                )
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"{where}: node 0 did not answer {limit}: {found}. {advice}"
                )
            time.sleep(0.5)


ONE_NODE = Nodes()


def _is_here(host: str) -> bool:
    """Returns True if a name or an address belongs to this machine."""
    # Only an address of this machine can be listened on.
    with suppress(OSError), socket.create_server((host, 0)):
        return True
    return False
