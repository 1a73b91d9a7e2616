"""Annotation tables: what is read, and what each mistake says."""

from pathlib import Path

import pytest

from mmpt.errors import DataError
from mmpt.utils.validation import NotBlank, Row, read_table


class Text(Row):
    text: NotBlank


class Captioned(Text):
    id: NotBlank


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_with_their_lines(tmp_path: Path) -> None:
    """A byte order mark, Windows line ends, quoted separators, spaces and blank lines are no
    mistakes.
    """
    path = write(tmp_path / "a.csv", '\ufeffid, text ,note\r\nv1,"a, b",\r\n\r\n v2 ,c,x\r\n')
    rows = [Captioned(line=2, id="v1", text="a, b"), Captioned(line=4, id="v2", text="c")]
    assert read_table(path, Captioned) == rows


def test_tabs_and_files_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "1\ta b\n2\tc\n")
    rows = read_table(path, Text, delimiter="\t", header=["id", "text"])
    assert [row.text for row in rows] == ["a b", "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must hold a row at least"),
        (
            "video,caption\nv1,a\n",
            r"must have the columns text, id .*first line is 'video,caption'.*another data set",
        ),
        ("id\ttext\nv1\ta\n", r"\(cells separated by ','\), but its first line is"),
        ("id,text\n", "must hold a row at least"),
        ("id,text\nv1,a\nv2\n", r"line 3: must have 2 cells \(id, text\), but has 1"),
        ("id,text\nv1,a,b\n", "line 2: must have 2 cells"),
        ("id,text\nv1,a\nv2,  \n", r"line 3: `text` must not be empty"),
        ('id,text\nv1,"a\n', r"not a table \("),
        (b"id,text\nv1,\xff\xfe\n", "not a table in UTF-8"),
    ],
)
def test_mistakes(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path, Captioned)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv", Text)
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path, Text)
