"""What the tests of extraction and of packing share."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five videos, `SECONDS` long."""
    from tests.support.extract_jobs import write_videos

    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder)
    return folder


@pytest.fixture
def run_extract(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in this process, with a stand-in for S3D."""
    from mmpt.cli import extract
    from tests.support.extract_jobs import Pooling

    monkeypatch.setattr(extract, "open_network", lambda *_, **__: (Pooling(), "pooling"))
    common = ["--device", "cpu"]
    return lambda source, out, *more: extract.main(
        ["--vdir", str(source), "--fdir", str(out), *common, *more]
    )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of nine feature files; a training list of the first seven and a validation list lie
    beside it.
    """
    from tests.support.feature_files import write_features

    return write_features(tmp_path)
