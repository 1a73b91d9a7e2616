"""Only the videos of an index are found, wherever its names point to."""

from pathlib import Path

import pytest

from mmpt.app.video_files import VideoFiles, address


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    for name in (
        "new/a.mp4",
        "old/a.mp4",
        "old/deep/b.WEBM",
        "old/a.npy",
        "secret.mp4",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "old/list.txt").write_text("no video")
    return [tmp_path / "new", tmp_path / "old"]


def test_the_first_folder_that_has_a_video_is_taken(folders: list[Path]) -> None:
    files = VideoFiles(["a", "deep/b", "c"], folders)
    new, old = folders
    assert files.video("a") == new / "a.mp4"
    assert files.video("deep/b") == old / "deep/b.WEBM"
    assert files.features("a") == old / "a.npy"
    assert files.video("c") is files.features("c") is None


@pytest.mark.parametrize(
    "name", ["../secret", "deep/../a", "/etc/passwd", "a.mp4", "list", "", ".", "b"]
)
def test_no_other_file_is_found(folders: list[Path], name: str) -> None:
    absolute = str(folders[0].parent / "secret")
    # The name is not of the index.
    assert VideoFiles(["deep/b"], folders).video(name) is None
    # The index is someone else's.
    hostile = VideoFiles([name, absolute], folders)
    assert hostile.video(name) is hostile.features(name) is None
    assert hostile.video(absolute) is None


def test_an_address_is_quoted() -> None:
    assert address("a b/c#d?", 12) == "videos/a%20b/c%23d%3F#t=12"
