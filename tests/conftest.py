"""Fixtures: a small corpus, which the project's own command makes once per test session, and a
stand-in for the Hugging Face Hub.

The hooks set the order of tests, and how signals are handled.
"""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.hub_server import Hub

# Each process has one thread, because tests run in parallel. This is set before torch is imported.
# The commands that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")


def pytest_configure() -> None:
    """Replaces ignored SIGINT and SIGHUP by handlers that do nothing, because child processes
    inherit ignored signals but not handlers.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the long tests first, so that no core waits for the last of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests that need a GPU on a machine without one."""
    if item.get_closest_marker("gpu"):
        import torch  # late: most single tests start faster without it

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 training and 8 validation videos with a BERT of width 32, two layers and no dropout."""
    from tests.support.small_corpus import make_small_corpus

    out = tmp_path_factory.mktemp("corpus") / "demo"
    make_small_corpus(out)
    return out


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Hub]":
    """A stand-in for the Hugging Face Hub, with an empty cache and an empty current folder."""
    from tests.support.hub_server import running_hub, use_hub

    with running_hub() as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield hub


def pytest_collection_finish() -> None:
    """Excludes imported objects from garbage collection, which makes it faster in all tests."""
    gc.collect()
    gc.freeze()
