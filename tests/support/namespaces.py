"""Two hosts on one machine: network namespaces that a veth pair connects like a cable."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESSES = ("10.77.0.1", "10.77.0.2")
CLONE_NEWNET = 0x40000000


def _ip(*words: str) -> None:
    subprocess.run(
        ["ip", *words], check=True, capture_output=True, text=True, timeout=60
    )


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Yields the names of the namespaces of two hosts, which have `ADDRESSES`.

    Raises:
        OSError: namespaces cannot be made here. The message is the reason.
    """
    if not shutil.which("ip"):
        raise OSError("the program `ip` (package iproute2) is not installed")
    names = [f"mmpt{os.getpid()}{letter}" for letter in "ab"]
    cables = [f"m{os.getpid()}{letter}" for letter in "ab"]
    try:
        try:
            for name in names:
                _ip("netns", "add", name)
            cable = ["link", "add", cables[0], "netns", names[0], "type", "veth"]
            _ip(*cable, "peer", "name", cables[1], "netns", names[1])
            for name, end, address in zip(names, cables, ADDRESSES, strict=True):
                _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
                for device in (end, "lo"):
                    _ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError as err:
            raise OSError(
                f"network namespaces cannot be made: {err.stderr.strip()}"
            ) from err
        yield names
    finally:
        for name in names:
            subprocess.run(
                ["ip", "netns", "del", name], capture_output=True, check=False
            )


def on_host(name: str) -> list[str]:
    """Returns the prefix of a command that runs on a host."""
    return ["ip", "netns", "exec", name]


def enter_host(name: str) -> None:
    """Moves this process, which must have a single thread, to a host."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace {name}")
