"""Fixtures for the tests of extraction and packing."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of five videos. `SECONDS` has their lengths."""
    from tests.support.extract_jobs import write_videos

    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder)
    return folder


@pytest.fixture
def run_extract(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Returns a function that runs the command in this process, with `Pooling` instead of S3D."""
    from mmpt.cli import extract
    from tests.support.extract_jobs import Pooling

    monkeypatch.setattr(
        extract, "open_network", lambda *_, **__: (Pooling(), "pooling")
    )
    common = ["--device", "cpu"]
    return lambda source, out, *more: extract.main(
        ["--vdir", str(source), "--fdir", str(out), *common, *more]
    )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Returns a folder of nine feature files. Its parent has a training list with the first seven,
    and a validation list.
    """
    from tests.support.feature_files import write_features

    return write_features(tmp_path)
