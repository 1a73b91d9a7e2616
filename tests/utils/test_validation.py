"""Reading of tables into models, and the messages about mistakes in them."""

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


def test_rows_contain_their_line_numbers(tmp_path: Path) -> None:
    """Byte order marks, Windows line ends, quoted separators and blank lines are allowed."""
    path = write(
        tmp_path / "a.csv", '\ufeffid, text ,note\r\nv1,"a, b",\r\n\r\n v2 ,c,x\r\n'
    )
    rows = [
        Captioned(line=2, id="v1", text="a, b"),
        Captioned(line=4, id="v2", text="c"),
    ]
    assert read_table(path, Captioned) == rows


QUOTES = [
    ('id,text\nv1,a\nv2,"b\nv3,c\nv4,d\n', 3),  # open until the end of the file
    ('id,text\nv1,a\nv2,"b\nv3,c\nv4,"d"\n', 3),  # open until the quote of another cell
    ('id,text\nv1,"a\nb"\nv2,"c\nv3,d\n', 4),  # after a cell of two lines
    ('id,text\r\nv1,"say ""hi"""\r\n\r\nv2,"b\r\n', 4),
    ('id,text\nv1,a "b" c\nv2,"b" c\n', 3),  # closed too early
    ('"id,text\nv1,a\n', 1),
    ('id,text\nv1,"' + "a\n" * 100_000, 2),  # longer than csv's limit
    ('id,text\u2028\nv1,"a\n', 2),
    (f"id,text\nv1,a\nv2,{'b' * 200_000}\n", 3),
]


@pytest.mark.parametrize(("content", "line"), QUOTES)
def test_an_unclosed_quote_is_reported_with_its_line(
    tmp_path: Path, content: str, line: int
) -> None:
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(DataError, match=rf"a\.csv, line {line}: not a table .*quote"):
        read_table(path, Captioned)


def test_a_wrong_row_of_several_lines_is_reported_with_all_of_them(
    tmp_path: Path,
) -> None:
    """If a closing quote is missing, a later quote may close the cell."""
    path = write(tmp_path / "a.csv", 'id,text\nv1,a\nv2,"b\nv3,c\nv4,d",x\nv5,e\n')
    with pytest.raises(DataError, match="lines 3 to 5: must have 2 cells"):
        read_table(path, Captioned)


def test_tables_with_tabs_and_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "1\ta b\n2\tc\n")
    rows = read_table(path, Text, delimiter="\t", header=["id", "text"])
    assert [row.text for row in rows] == ["a b", "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must hold at least one row"),
        (
            "video,caption\nv1,a\n",
            r"must have the columns text, id .*first line is 'video,caption'.*another data set",
        ),
        ("id\ttext\nv1\ta\n", r"\(cells separated by ','\), but its first line is"),
        ("id,text\n", "must hold at least one row"),
        ("id,text\nv1,a\nv2\n", r"line 3: must have 2 cells \(id, text\), but has 1"),
        ("id,text\nv1,a,b\n", "line 2: must have 2 cells"),
        ("id,text\nv1,a\nv2,  \n", r"line 3: `text` must not be empty"),
        ('id,text\nv1,"a\n', r"not a table \("),
        (b"id,text\nv1,\xff\xfe\n", r"not a table in UTF-8 \(line 2: byte 11 is 0xff"),
        (b"id,text\nv1,a\nv2,\0\0\n", r"not a table in UTF-8 \(line 3: a zero byte"),
    ],
)
def test_mistakes_are_reported(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path, Captioned)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv", Text)
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path, Text)
