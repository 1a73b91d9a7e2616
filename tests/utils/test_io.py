"""Atomic writes, JSON, and pickles of plain values. Code in a pickle is never run."""

import collections
import errno
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.errors import DataError
from mmpt.utils.io import (
    atomic_write,
    load_plain_pickle,
    load_word_array,
    read_json,
    write_json,
)


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as file:
        file.write("größer")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "größer".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_an_interrupt_after_renaming_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace

    def replace_and_interrupt(source: str, target: Path) -> None:
        rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "file.json", [1])
    assert read_json(tmp_path / "file.json") == [1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_only_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_write(path, "wb") as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            errno.ENOSPC,
            "the disk is full (No space left on device). Make room or choose another",
        ),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EFBIG, "the file is larger than `ulimit -f` allows"),
    ],
)
def test_a_full_disk_is_reported_with_the_remedy(
    tmp_path: Path, number: int, words: str
) -> None:
    def fail_half_way() -> None:
        with atomic_write(tmp_path / "file", "wb"):
            raise OSError(number, os.strerror(number))

    with pytest.raises(DataError) as found:
        fail_half_way()
    assert f"{tmp_path}/file: cannot be written: {words}" in str(found.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError,
        match=r"file/x\.json: cannot be written \(.*\)\. Make its folder writable",
    ):
        write_json(tmp_path / "file" / "x.json", [])


def test_a_file_gets_the_same_permissions_as_with_open(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "ours") as file:
        file.write("x")
    (tmp_path / "plain").write_text("x")
    ours, plain = (
        stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("ours", "plain")
    )
    assert ours == plain


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"video": ["ä", 1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "ä" in (tmp_path / "a.json").read_text(encoding="utf-8")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")  # with a byte order mark
    assert read_json(tmp_path / "a.json") == [1]


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[" * 100_000, b"1" * 5000]
)
def test_invalid_json_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")


PLAIN = {"ids": ["a", "b"], "spans": [(0, 1.5), (2, 3)], "none": None, "big": 1 << 80}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_from_pickles_of_every_protocol(
    tmp_path: Path, protocol: int
) -> None:
    plain: dict[str, Any] = dict(PLAIN)
    if protocol >= 4:  # older protocols store bytes and sets as calls of functions
        plain |= {"raw": b"x", "set": {1, 2}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(plain, protocol=protocol))
    assert load_plain_pickle(tmp_path / "a.pkl") == plain


class Malicious:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_code_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(
        pickle.dumps({"train": [Malicious(tmp_path / "ran")]})
    )
    with pytest.raises(
        DataError,
        match=r"a\.pkl: only pickles of plain values .* it asks for posix\.mkdir",
    ):
        load_plain_pickle(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value", [collections.OrderedDict(a=1), np.zeros(3), Path("x"), print]
)
def test_a_pickle_with_a_class_is_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([value]))
    with pytest.raises(DataError, match="it asks for"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_truncated_and_missing_pickles_are_refused(tmp_path: Path) -> None:
    whole = pickle.dumps(PLAIN)
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.pkl").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.pkl: "):
            load_plain_pickle(tmp_path / "a.pkl")
    # A pickle that asks for a memo of two thousand million entries.
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04Nr\xff\xff\xff\x7f.")
    with pytest.raises(DataError, match="but it is damaged"):
        load_plain_pickle(tmp_path / "a.pkl")
    with pytest.raises(DataError, match=r"none\.pkl: no such file"):
        load_plain_pickle(tmp_path / "none.pkl")


@pytest.mark.parametrize("dtype", [np.str_, object])
def test_words_are_read_from_both_kinds_of_array(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "words.npy", np.array(["cut", "größer"], dtype=dtype))
    assert load_word_array(tmp_path / "words.npy") == ["cut", "größer"]


def test_an_array_with_code_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    np.save(
        tmp_path / "words.npy",
        np.array(["cut", Malicious(tmp_path / "ran")], dtype=object),
    )
    with pytest.raises(DataError, match=r"words\.npy: must be an \.npy file"):
        load_word_array(tmp_path / "words.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.array([["a"]]), np.array(["a", 1], dtype=object)]
)
def test_an_array_of_other_values_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "words.npy"
    np.save(path, array)
    with pytest.raises(DataError, match=r"words\.npy: must hold a 1-D array of words"):
        load_word_array(path)
    for content in (b"", b"page not found", path.read_bytes()[:-5]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"words\.npy: must be an \.npy file"):
            load_word_array(path)
