"""The check that the Hugging Face hub answers, with stand-ins on this machine."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from mmpt.utils.hub_probe import hub_problem, load_from_hub
from tests.support.hub_server import running_hub, use_hub


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that accepts connections but never answers."""
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


def test_a_hub_that_answers_has_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub() as hub:
        use_hub(hub, tmp_path, monkeypatch)
        assert hub_problem(timeout_s=60) == ""


def test_a_proxy_that_does_not_reach_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub() as hub:
        use_hub(hub, tmp_path, monkeypatch)
        hub.failures[""] = 502
        assert hub_problem(timeout_s=60) == "status 502"


def test_a_hub_that_refuses_connections_is_reported(closed: None) -> None:
    assert "refused" in hub_problem(timeout_s=60)


def test_a_hub_that_never_answers_is_reported(silent: None) -> None:
    start = time.monotonic()
    assert hub_problem(timeout_s=0.2) in ("timed out", "no answer within 0.2 s")
    assert time.monotonic() - start < 10  # the client would try again for 23 seconds


def test_offline_mode_is_reported(
    closed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in hub_problem(timeout_s=60)


class Loader:
    """A stand-in for `from_pretrained` of a model that is in the cache, or only on the hub."""

    def __init__(self, *, is_cached: bool):
        self.is_cached = is_cached
        self.calls: list[bool] = []

    def __call__(self, name: str, local_files_only: bool = False) -> str:
        self.calls.append(local_files_only)
        if local_files_only and not self.is_cached:
            raise OSError(f"{name}: not in the cache")
        return name


def test_the_cache_is_used_without_the_hub(closed: None) -> None:
    load = Loader(is_cached=True)
    assert load_from_hub("a/bert", load) == "a/bert"
    assert load.calls == [True]


def test_other_files_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Loader(is_cached=False)
    with running_hub() as hub:
        use_hub(hub, tmp_path, monkeypatch)
        assert load_from_hub("a/bert", load) == "a/bert"
    assert load.calls == [True, False]


@pytest.mark.parametrize(
    ("name", "message"), [("a/bert", "refused"), ("/no/bert", "cannot be a name")]
)
def test_no_download_is_attempted_if_it_cannot_succeed(
    closed: None, name: str, message: str
) -> None:
    load = Loader(is_cached=False)
    with pytest.raises(OSError, match=message):
        load_from_hub(name, load)
    assert load.calls == [True]
