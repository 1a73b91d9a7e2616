"""Files: atomic writes, and the only reader of legacy pickles, whose unpickler builds plain values
only.
"""

import codecs
import errno
import hashlib
import json
import os
import pickle
import re
import tokenize
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal
from uuid import uuid4

import numpy as np

from mmpt.errors import DataError

DISK_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than `ulimit -f` allows",
}
"""The errors of a write that finds no room."""
NPY_ERRORS = (ValueError, EOFError, OverflowError, MemoryError, SyntaxError, tokenize.TokenError)
"""What NumPy raises for a `.npy` file whose header is broken; it is Python source, so Python's own
errors too.
"""


@contextmanager
def reading(path: str | Path, remedy: str = "Make or download the file again.") -> Iterator[None]:
    """Turns an OSError of the block, which reads `path`, into one message.

    Args:
        remedy: what to do about a file that is not there, as a sentence.
    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. {remedy} Or correct the path.") from None
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror}. {remedy}") from None


@contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """Turns an OSError of the block, which writes to `place`, into one message.

    Raises:
        DataError: the file or folder cannot be written.
    """
    try:
        yield
    except OSError as err:
        raise write_error(err, err.filename2 or err.filename or place) from err


def write_error(err: OSError, place: str | Path) -> DataError:
    """Returns the error that says why `place` cannot be written, and what to do."""
    reason = DISK_FULL.get(err.errno or 0)
    if reason is None:
        return DataError(
            f"{place}: cannot be written ({err.strerror or err}). Choose another folder."
        )
    return DataError(
        f"{place}: cannot be written: {reason} ({err.strerror}). Make room or choose another "
        "folder, and run the same command again. Nothing half-written was left, and what is "
        "finished is kept."
    )


@contextmanager
def atomic_write(path: str | Path, mode: str = "w", errors: str | None = None) -> Iterator[IO[Any]]:
    """Opens a temporary file next to `path`, and renames it to `path` when the block ends well.

    After an error in the block the temporary file is removed.

    Args:
        errors: what to do with text that is no UTF-8, as for `open`.
    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{uuid4().hex}.tmp"
    # Opened for reading too, because np.save writes to a write-only file without Python, and then
    # reports a full disk without its error number.
    encoding = None if "b" in mode else "utf-8"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, f"{mode}+", encoding=encoding, errors=errors)  # noqa: SIM115
    except OSError as err:
        raise write_error(err, path) from err
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as err:
        temporary.unlink(missing_ok=True)
        if isinstance(err, OSError) and err.errno in DISK_FULL:
            raise write_error(err, path) from err
        raise


def remove_leftovers(folder: Path, names: str | Container[str]) -> None:
    """Remove what writers that were killed left of files of these names; call it under the lock
    that writers hold.

    Args:
        folder: need not be there.
        names: the names that were to be written, or a regular expression of them.
    """
    for path in list(folder.glob(".*.*.tmp")):
        name = path.name[1:].rsplit(".", 2)[0]
        if re.fullmatch(names, name) if isinstance(names, str) else name in names:
            path.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    # Half a surrogate becomes JSON's own escape.
    with atomic_write(path, errors="backslashreplace") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


def read_text(path: str | Path, kind: str = "text") -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 with a byte order mark. The mark, if there
    is one, is left out; line ends stay as they are.

    Args:
        kind: what the file must be, for messages.
    Raises:
        DataError: missing, another encoding, or no text. Names the line.
    """
    with reading(path):
        content = Path(path).read_bytes()
    # Two bytes alone are no mark of a text.
    is_utf16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and len(content) > 2
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
        place, problem = text.find("\0"), "a zero byte"
    except UnicodeDecodeError as err:
        text, place = content.decode("latin-1"), err.start
        problem = f"byte {place} is 0x{content[place]:02x}, {err.reason}"
    if place >= 0:
        raise DataError(
            f"{path}: not {kind} in UTF-8 (line {len(split_lines(text[: place + 1]))}: {problem}). "
            "Convert it, for example with `iconv -t UTF-8 -f WINDOWS-1252` or `-f UTF-16LE`, make "
            "or download it again, or correct its path."
        )
    return text


def split_lines(text: str) -> list[str]:
    """Returns the lines of a text, without their ends.

    Unlike in `str.splitlines`, only newlines separate lines, not U+2028 and the like. A byte order
    mark at the beginning of a line, as concatenated files have it, is removed.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removeprefix("\ufeff") for line in lines]


def read_lines(path: str | Path, kind: str = "text") -> list[str]:
    """Returns the lines of a text file; see `split_lines` and `read_text`."""
    return split_lines(read_text(path, kind))


def read_json(path: str | Path) -> Any:
    """Returns what a JSON file holds; DataError when it is missing or broken."""
    return parse_json(read_text(path, "valid JSON"), path)


def parse_json(text: str, name: str | Path) -> Any:
    """Returns what JSON text holds; DataError, which begins with `name`, when it is broken."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:  # also a number of thousands of digits
        raise DataError(f"{name}: not valid JSON ({err}); make or download it again.") from None


def file_hash(path: str | Path) -> str:
    """Returns the SHA-256 of a file, in hex; DataError when it is missing or cannot be read."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_npy(path: str | Path, remedy: str, *, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Returns the array of a `.npy` file, read or mapped.

    Args:
        remedy: what to do about a file that is not there or damaged, as a sentence.
        mmap_mode: as for `np.load`.
    Raises:
        DataError: missing, unreadable, truncated, or anything but one array of numbers or strings.
    """
    with reading(path, remedy):
        try:
            array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        except NPY_ERRORS as err:
            reason = str(err).partition(". ")[0]  # not NumPy's advice on running code from the file
            raise DataError(f"{path}: not a complete .npy file ({reason}). {remedy}") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: must be an .npy file, but holds several arrays. {remedy}")
    return array


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSON Lines log, without lines cut short; none without a file."""
    try:
        lines = split_lines(Path(path).read_bytes().decode(errors="replace"))
    except OSError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


class _PlainUnpickler(pickle.Unpickler):
    """Builds None, numbers, strings, bytes, lists, tuples, dicts and sets; refuses every class and
    function.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_plain_pickle(path: str | Path) -> Any:
    """Read a pickle of plain values (as the released meta and caption files are); refuse anything
    that is code.

    Raises:
        DataError: missing, truncated, or holding more than plain values.
    """
    with reading(path), open(path, "rb") as file:
        try:
            return _PlainUnpickler(file).load()
        except Exception as err:  # damaged bytes make the reader raise almost anything
            problem = str(err) or "it is damaged"
            raise DataError(
                f"{path}: only pickles of plain values (lists, dicts, strings, numbers) are read, "
                f"but {problem}. If you trust the file, convert it to JSON yourself."
            ) from None


class _WordArrayUnpickler(_PlainUnpickler):
    """Builds, beside plain values, NumPy arrays of them: the pickled part of an `.npy` file of
    Python strings.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.ndarray.__reduce__(np.empty(0))[0]
        return super().find_class(module, name)


def load_word_array(path: str | Path) -> list[str]:
    """Return the words of a 1-D `.npy` file, stored as strings or as pickled Python strings; code
    is refused.

    Raises:
        DataError: damaged, or anything but a 1-D array of strings.
    """
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            _, _, dtype = np.lib.format.read_array_header_1_0(file)
            words = _WordArrayUnpickler(file).load() if dtype.hasobject else np.load(path)
    except Exception as err:  # damaged bytes make the readers raise almost anything
        raise DataError(
            f"{path}: must be an .npy file with a 1-D array of words, but {err}."
        ) from None
    is_list = isinstance(words, np.ndarray) and words.ndim == 1
    values: list[Any] = words.tolist() if is_list else [words]
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{path}: must hold a 1-D array of words, but holds something else.")
    return values
