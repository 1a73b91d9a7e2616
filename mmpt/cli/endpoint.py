"""Finds out whether the launcher of node 0 answers at an endpoint, or which other program listens.

torch itself would connect to any program that listens there, and wait for its answer forever.
"""

import socket
import threading
from contextlib import suppress
from datetime import timedelta
from enum import Enum

GREETING_S = 0.3
"""Time to wait for data that a program sends before it is asked. A launcher sends none."""
ANSWER_S = 20.0
"""Longest time that a launcher takes to answer."""


class Answer(Enum):
    """The kind of program that listens at an endpoint."""

    LAUNCHER = "a launcher"
    CLOSED = "closes connections"
    """It may be a launcher whose job ends at this moment."""
    OTHER = "another program"


def ask(host: str, port: int, timeout_s: float) -> tuple[Answer, str]:
    """Returns the kind of program that listens at an endpoint, and a description.

    Args:
        host: name or address of the machine.
        port: port on it.
        timeout_s: longest time to wait for an answer.
    Raises:
        OSError: nothing listens there.
    """
    # A launcher runs a store of torch. It keeps the connection open, sends nothing before it is
    # asked, and answers the requests of a store's client.
    greeting = _greeting(host, port, timeout_s)
    if greeting == b"":
        return Answer.CLOSED, "it closes connections"
    if greeting:
        text = greeting.decode(errors="replace").strip()
        return Answer.OTHER, f"it sends {text!r}"
    found = _answers_as_store(host, port, min(timeout_s, ANSWER_S))
    if found is None:
        return Answer.OTHER, "it accepts connections, but does not answer"
    if not found:
        return Answer.OTHER, "it does not speak torch's protocol"
    return Answer.LAUNCHER, ""


def _greeting(host: str, port: int, timeout_s: float) -> bytes | None:
    """Returns the first bytes that a program sends before it is asked.

    They are empty if the program closes the connection. None: it waits for a request.
    """
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.settimeout(GREETING_S)
        try:
            return connection.recv(80)
        except TimeoutError:
            return None
        except ConnectionError:
            return b""


def _answers_as_store(host: str, port: int, timeout_s: float) -> bool | None:
    """Returns whether a store of torch answers. None: nothing has answered."""
    # deferred: imports torch
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

    found: list[bool] = []

    def connect() -> None:
        timeout = timedelta(seconds=timeout_s)
        try:
            TCPStore(
                host, port, is_master=False, wait_for_workers=False, timeout=timeout
            )
            found.append(True)
        except DistError:
            found.append(False)

    # A thread that waits for an answer cannot be stopped. It ends with the process.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout_s + GREETING_S)
    return found[0] if found else None


def listener(port: int) -> str:
    """Returns the name of the program of this machine that listens at a port, if it is known."""
    import psutil  # deferred: not needed otherwise

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            is_listener = connection.status == psutil.CONN_LISTEN
            if is_listener and connection.laddr.port == port and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f"{name} (pid {connection.pid})"
    return ""
