"""Only the videos of an index are found, even if a name is a path outside of the folders."""

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


def test_the_first_folder_that_has_a_video_is_used(folders: list[Path]) -> None:
    files = VideoFiles(["a", "deep/b", "c"], folders)
    new, old = folders
    assert files.video("a") == new / "a.mp4"
    assert files.video("deep/b") == old / "deep/b.WEBM"
    assert files.features("a") == old / "a.npy"
    assert files.video("c") is files.features("c") is None


@pytest.mark.parametrize(
    "name", ["../secret", "deep/../a", "/etc/passwd", "a.txt", "list", "", ".", ".."]
)
def test_no_other_file_is_found(folders: list[Path], name: str) -> None:
    absolute = str(folders[0].parent / "secret")
    # The name is not in the index.
    assert VideoFiles(["deep/b"], folders).video(name) is None
    # The index was made by an attacker.
    hostile = VideoFiles([name, absolute], folders)
    assert hostile.video(name) is hostile.features(name) is None
    assert hostile.video(absolute) is None


@pytest.mark.parametrize("name", ["b", "b.mp4", "deep/b.mp4", "a.MP4"])
def test_names_may_lack_the_folder_or_include_the_suffix(
    folders: list[Path], name: str
) -> None:
    """`mmpt extract` leaves folders out, and some programs keep the suffix of a video."""
    expected = folders[0] / "a.mp4" if "a" in name else folders[1] / "deep/b.WEBM"
    assert VideoFiles([name], [*folders, "missing"]).video(name) == expected
    assert VideoFiles([], folders).video(name) is None


def test_the_folder_in_a_name_must_match(folders: list[Path]) -> None:
    """A video of the same name in another folder is another video."""
    assert VideoFiles(["other/b"], folders).video("other/b") is None


def test_an_address_is_quoted() -> None:
    assert address("a b/c#d?", 12) == "videos/a%20b/c%23d%3F#t=12"
