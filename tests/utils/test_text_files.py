"""Byte order marks, line ends and encodings in all readers of text files."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmpt.config.yaml_files import read_yaml
from mmpt.endtasks.crosstask.data import read_segments, read_tasks
from mmpt.errors import DataError
from mmpt.media.video_list import find_videos
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.video_table import read_id_list
from mmpt.utils.io import read_json, read_json_lines, read_lines, write_json
from mmpt.utils.validation import Row, read_table
from tests.support.tiny_bert import tiny_bert

Read = Callable[[Path], Any]
ODD = "a\u2028b\x0bc\x0cd\x1ce\x85f"
"""A text with characters at which `str.splitlines` would begin a new line."""


class Text(Row):
    id: str
    text: str


def rows(path: Path) -> list[str]:
    return [row.text for row in read_table(path, Text)]


def videos(path: Path) -> list[str]:
    return [str(job.video) for job in find_videos([path], "feat").jobs]


READERS: dict[str, tuple[str, Read, str, Any]] = {
    # name: (name of the file, reader, content of the file, expected result)
    "lines": ("a.txt", read_lines, f"x\n{ODD}\n\ny", ["x", ODD, "", "y"]),
    "ids": ("a.lst", read_id_list, f"x\n{ODD}\n\ny", ["x", ODD, "y"]),
    "videos": ("a.lst", videos, f"/x.mp4\n\n/{ODD}/y.mp4", ["/x.mp4", f"/{ODD}/y.mp4"]),
    "table": ("a.csv", rows, f'id,text\nx,"{ODD}"\ny,z', [ODD, "z"]),
    "tasks": (
        "a.txt",
        lambda path: read_tasks(str(path)),
        f"1\n{ODD}\nurl\n2\ncut,stir {ODD} well\n\n2\nt\nurl\n1\nboil\n\n",
        {"1": ["cut", f"stir {ODD} well"], "2": ["boil"]},
    ),
    "json": ("a.json", read_json, f'{{"x":\n["{ODD[:3]}"]}}', {"x": [ODD[:3]]}),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_and_line_ends_are_removed_and_other_characters_kept(
    tmp_path: Path, name: str, newline: str, encoding: str
) -> None:
    file, read, content, expected = READERS[name]
    (tmp_path / file).write_bytes(content.replace("\n", newline).encode(encoding))
    assert read(tmp_path / file) == expected


@pytest.mark.parametrize("name", READERS)
def test_other_encodings_and_damage_are_reported_with_the_line(
    tmp_path: Path, name: str
) -> None:
    file, read, content, _ = READERS[name]
    path, begin = tmp_path / file, content.split("\n", maxsplit=1)[0] + "\r\n"
    path.write_bytes(f"{begin}café\n".encode("latin-1", "replace"))
    where = f"{file}: not .* in UTF-8"
    with pytest.raises(DataError, match=rf"{where} \(line 2: byte \d+ is 0xe9.*iconv"):
        read(path)
    path.write_bytes(begin.encode() + bytes(8))  # as after a crash
    with pytest.raises(DataError, match=rf"{where} \(line 2: a zero byte"):
        read(path)
    path.write_bytes(begin.encode("utf-16-le"))  # without a byte order mark
    with pytest.raises(DataError, match=rf"{where} \(line 1: a zero byte.*UTF-16"):
        read(path)


def test_byte_order_marks_within_a_file_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a.lst").write_bytes(b"\xef\xbb\xbfx\n" + b"\xef\xbb\xbfy\n")
    assert read_id_list(tmp_path / "a.lst") == ["x", "y"]


def test_a_video_with_an_invalid_name_is_reported_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.lst").write_text(
        "/x/x.mp4\n/x/line\u2028end.mp4\n", encoding="utf-8"
    )
    with pytest.raises(
        DataError, match=r"line 2: the video id 'line.*control character"
    ):
        find_videos([tmp_path / "a.lst"], "feat")


def test_json_lines_keep_unusual_line_separators(tmp_path: Path) -> None:
    text = json.dumps({"id": ODD.replace("\x0b", "")}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_text(f"{text}\n{text[:-1]}", encoding="utf-8")
    (row,) = read_json_lines(tmp_path / "a.jsonl")
    assert "\u2028" in row["id"]


@pytest.mark.parametrize("use_fast", [True, False])
def test_a_vocabulary_with_a_byte_order_mark_gives_the_same_ids(
    tmp_path: Path, use_fast: bool
) -> None:
    plain, marked = tiny_bert(tmp_path / "plain"), tiny_bert(tmp_path / "marked")
    path = Path(marked) / "vocab.txt"
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    ours, theirs = (load_tokenizer(folder, use_fast) for folder in (marked, plain))
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.pad_token_id == theirs.pad_token_id == 0
    assert ours("cut the tomato")["input_ids"] == theirs("cut the tomato")["input_ids"]


def test_a_yaml_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(codecs.BOM_UTF8 + b"task: x\r\n")
    assert read_yaml(tmp_path / "a.yaml") == {"task": "x"}


def test_an_annotation_of_only_a_byte_order_mark_has_no_segments(
    tmp_path: Path,
) -> None:
    (tmp_path / "1_x.csv").write_bytes(codecs.BOM_UTF8 + b"\r\n")
    assert read_segments(tmp_path / "1_x.csv", 3) == []


def test_no_byte_order_mark_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(codecs.BOM_UTF8 + b'["x"]')
    write_json(tmp_path / "b.json", read_json(tmp_path / "a.json"))
    assert (tmp_path / "b.json").read_bytes()[:1] == b"["
