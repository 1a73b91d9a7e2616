"""Whether the Hugging Face hub answers, with stand-ins on this machine."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from mmpt.utils.hub_probe import hub_problem
from tests.support.hub_server import running_hub, use_hub


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        _use(server, monkeypatch)
        yield


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        _use(server, monkeypatch)


def _use(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_a_hub_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_hub() as hub:
        use_hub(hub, tmp_path, monkeypatch)
        assert hub_problem(timeout_s=60) == ""


def test_a_proxy_without_a_hub_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub() as hub:
        use_hub(hub, tmp_path, monkeypatch)
        hub.failures[""] = 502
        assert hub_problem(timeout_s=60) == "status 502"


def test_a_hub_that_refuses_connections(closed: None) -> None:
    assert "refused" in hub_problem(timeout_s=60)


def test_a_hub_that_never_answers(silent: None) -> None:
    start = time.monotonic()
    assert hub_problem(timeout_s=0.2) in ("timed out", "no answer within 0.2 s")
    assert time.monotonic() - start < 10  # the client would try again for 23 seconds


def test_offline_mode(closed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in hub_problem(timeout_s=60)
