"""Docstrings, comments, messages, names of tests and documents are written in plain words.

`PHRASES` lists words and phrases to avoid, each with a replacement.

    python tests/test_words.py    # lists them, with file and line
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# As this file is also run as a script, it imports nothing of `tests/`.
ROOT = Path(__file__).resolve().parents[1]

PHRASES = {
    r"all the same": "still; equally",
    r"aloud": "log it",
    r"anew": "again",
    r"beside": "next to; with",
    r"besides": "also; in addition to",
    r"behind": "after",
    r"but for": "except for",
    r"dealt": "assigned",
    r"for ever": "forever",
    r"(?:go|goes|going|went) on": "continue",
    r"heed(?:s|ed)?": "obey; handle; use",
    r"in vain": "without success; unnecessarily",
    r"lends?|lent": "provide",
    r"mend(?:s|ed|ing)?": "fix",
    r"none such|no such thing": "none; no",
    r"nothing but": "only",
    r"one'?s own": "your own; user-defined",
    # `checkpoint.patience` is a key of fairseq.
    r"(?<!checkpoint\.)patience": "retry policy",
    r"save for": "except for",
    r"stands?(?! for)|stood": "is; are",
    r"tells?|told": "log; report; state",
    r"those of": "the others; repeat the noun",
    r"till": "until",
    r"under way": "in progress",
    r"upon": "on",
    r"what there is": "name it",
    r"workplaces?": "device",
}
"""Regular expression of a phrase to avoid -> what to write instead. A space matches line breaks."""

SENTENCES = {
    r"(?:^|[.:!?]\s+|\n\n|[-*|] )Of\s(?!course)": "start the sentence with its subject",
    r'\A[rR]?"""(?:What|How)\b': 'start a docstring with "A ...", "Returns ...", "Computes ..."',
    r"\Atest of\b": "start the name of a test with its subject",
}
"""The same for the beginning of a sentence, docstring or name of a test. Case matters here."""

FOLDERS = (
    "benchmarks",
    "docs",
    "experiments",
    "mmpt",
    "projects",
    "scripts",
    "spaces",
    "tests",
)
KINDS = {".html", ".md", ".py", ".pyi", ".sh", ".toml", ".yaml", ".yml"}


class Finding(NamedTuple):
    """A phrase to avoid, and where it occurs."""

    path: str
    line: int
    phrase: str
    replacement: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r} -> {self.replacement}"


def python_passages(source: str) -> Iterator[tuple[int, str]]:
    """Yields the line and the text of each string, block of comments, and name of a test."""
    strings = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    block: list[str] = []  # comments on consecutive lines
    block_end = -1
    word_before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            if line != block_end + 1 and block:
                yield block_end - len(block) + 1, "\n".join(block)
                block = []
            block.append(token.string.lstrip("#").strip())
            block_end = line
        elif token.type in strings:
            yield line, token.string
        elif word_before == "def" and token.string.startswith("test_"):
            yield line, token.string.replace("_", " ")
        word_before = token.string
    if block:
        yield block_end - len(block) + 1, "\n".join(block)


def markdown_passages(text: str) -> Iterator[tuple[int, str]]:
    """Yields the text without its code, which is replaced by as many line breaks."""
    code = r"^```.*?^```|`[^`]+`"
    breaks = re.sub(
        code, lambda match: "\n" * match[0].count("\n"), text, flags=re.M | re.S
    )
    yield 1, breaks


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the first line and the text of each passage of a file that people read."""
    text = path.read_text()
    if path.suffix in (".py", ".pyi"):
        yield from python_passages(text)
    elif path.suffix == ".md":
        yield from markdown_passages(text)
    else:
        yield 1, text


def find_in(path: str, line: int, text: str) -> Iterator[Finding]:
    """Yields the phrases to avoid in a passage that begins on a line of a file."""
    for pattern, replacement in PHRASES.items():
        words = rf"(?<![\w-])(?:{pattern})(?![\w-])".replace(" ", r"\s+")
        for match in re.finditer(words, text, re.IGNORECASE):
            place = line + text[: match.start()].count("\n")
            yield Finding(path, place, " ".join(match[0].split()), replacement)
    for pattern, replacement in SENTENCES.items():
        for match in re.finditer(pattern, text):
            place = line + text[: match.end()].count("\n")
            yield Finding(path, place, match[0].strip('r" \n.:!?'), replacement)


def text_files() -> list[Path]:
    """Returns the files of the project that contain text, except for this one."""
    paths = list(ROOT.iterdir())
    for folder in FOLDERS:
        paths += (ROOT / folder).rglob("*")
    names = ("Makefile", "requirements")
    texts = [
        path for path in paths if path.suffix in KINDS or path.name.startswith(names)
    ]
    return sorted(path for path in texts if not path.samefile(__file__))


def find_all() -> list[Finding]:
    """Returns the phrases to avoid in all files of the project."""
    found: list[Finding] = []
    for path in text_files():
        name = path.relative_to(ROOT).as_posix()
        for line, text in passages(path):
            found += find_in(name, line, text)
    return found


@pytest.mark.slow
def test_the_text_is_written_in_plain_words() -> None:
    found = find_all()
    assert not found, "\n".join(map(str, found))


def test_phrases_are_found_across_line_breaks_but_not_in_names() -> None:
    source = '"""What it does."""\n# goes\n# on\nbeside_it = "--beside-busy"\n"it was told"\n'
    found = [
        f for line, text in python_passages(source) for f in find_in("x.py", line, text)
    ]
    assert [(f.line, f.phrase) for f in found] == [
        (1, "What"),
        (5, "told"),
        (2, "goes on"),
    ]


def test_phrases_are_found_in_names_of_tests() -> None:
    names = ("test_it_is_in_vain", "test_of_two_one", "test_ones_own_loss", "in_vain")
    source = "".join(f"def {name}():\n    pass\n" for name in names)
    found = [
        f for line, text in python_passages(source) for f in find_in("x.py", line, text)
    ]
    assert [(f.line, f.phrase) for f in found] == [
        (1, "in vain"),
        (3, "test of"),
        (5, "ones own"),
    ]


def test_code_in_a_document_is_not_checked() -> None:
    text = "A `beside` and\n\n```\nbeside\n```\n\nOf it, beside.\n"
    found = [
        f
        for line, passage in markdown_passages(text)
        for f in find_in("x.md", line, passage)
    ]
    assert [(f.line, f.phrase) for f in found] == [(7, "beside"), (7, "Of")]


def main() -> int:
    """Prints the phrases to avoid and returns an exit code."""
    found = find_all()
    for finding in found:
        print(finding)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
