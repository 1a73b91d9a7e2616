"""Fixtures for the tests of the check."""

import shutil
from pathlib import Path

import pytest

from mmpt.cli import check as command
from mmpt.shards.shardedtensor import open_shard


@pytest.fixture
def copy(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a copy of the corpus that a test may damage.

    It has 32 training videos in shards of 20 and 12, and 8 validation videos.
    """
    shutil.copytree(corpus, tmp_path / "demo")
    open_shard.cache_clear()
    # Drawing would take most of the time with such a small corpus.
    monkeypatch.setattr(command, "save_histograms", lambda path, splits: None)
    return tmp_path / "demo"
