"""A corpus that a test may damage."""

import shutil
from pathlib import Path

import pytest

from mmpt.cli import check as command
from mmpt.shards.shardedtensor import open_shard


@pytest.fixture
def copy(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of one's own: 32 training videos in shards of 20 and 12, 8 validation videos."""
    shutil.copytree(corpus, tmp_path / "demo")
    open_shard.cache_clear()
    # Drawing takes most of a check's time on so small a corpus.
    monkeypatch.setattr(command, "save_histograms", lambda path, splits: None)
    return tmp_path / "demo"
