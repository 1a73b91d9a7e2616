"""A server on this machine, and where the tests of downloads put their file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpt.utils.download_ledger import Ledger
from tests import misbehaving_server as server
from tests.misbehaving_server import Site


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with server.running_site() as site:
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    running.pages.clear()
    running.requests.clear()
    return running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "s3d.npy"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)
