"""Reading and writing of files: atomic writes, text, JSON, `.npy` files and legacy pickles.

This is the only module that reads pickles. It builds plain values from them and never runs code.
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
"""Error numbers of a write for which there is no space, with their description."""
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Error numbers of a write that is not allowed."""
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
"""Names of a module of NumPy in pickles: up to NumPy 1, and since NumPy 2."""
NPY_ERRORS = (
    ValueError,
    EOFError,
    OverflowError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
)
"""Exceptions of NumPy for a `.npy` file with a damaged header. The header is a Python expression,
so errors of Python's parser are among them."""


@contextmanager
def reading(
    path: str | Path, remedy: str = "Make or download the file again."
) -> Iterator[None]:
    """Converts an OSError of the block, which reads `path`, to a DataError.

    Args:
        remedy: what to do about a missing file, as a sentence.
    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file. {remedy} Or correct the path."
        ) from None
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror}. {remedy}") from None


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Converts an OSError of the block, which writes to `path`, to a DataError.

    Raises:
        DataError: the file or folder cannot be written.
    """
    try:
        yield
    except OSError as err:
        raise write_error(err, err.filename2 or err.filename or path) from err


def write_error(err: OSError, path: str | Path) -> DataError:
    """Returns an error with the reason why `path` cannot be written, and what to do."""
    reason = DISK_FULL.get(err.errno or 0)
    if reason is None:
        details = err.strerror or err
        return DataError(
            f"{path}: cannot be written ({details}). Make its folder writable or choose another "
            "one, and run the same command again."
        )
    return DataError(
        f"{path}: cannot be written: {reason} ({err.strerror}). Make room or choose another "
        "folder, and run the same command again. Incomplete files have been removed, complete "
        "ones are kept."
    )


@contextmanager
def atomic_write(
    path: str | Path, mode: str = "w", errors: str | None = None
) -> Iterator[IO[Any]]:
    """Opens a temporary file next to `path`. If the block succeeds, the file is renamed to `path`.

    After an error in the block, the temporary file is removed.

    Args:
        mode: as for `open`: "w" or "wb".
        errors: treatment of text that cannot be encoded in UTF-8, as for `open`.
    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{uuid4().hex}.tmp"
    # The file is opened for reading too ("w+"). Otherwise np.save bypasses Python's file object,
    # and its error for a full disk has no error number.
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
            descriptor = file.fileno()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException as err:
        temporary.unlink(missing_ok=True)
        if isinstance(err, OSError) and err.errno in DISK_FULL:
            raise write_error(err, path) from err
        raise


def remove_leftovers(folder: Path, names: str | Container[str]) -> None:
    """Removes temporary files of `atomic_write` that killed processes have left.

    Call it while holding the lock that the writers hold.

    Args:
        folder: may be missing.
        names: names of the files that were to be written, or a regular expression for them.
    """
    for path in list(folder.glob(".*.*.tmp")):
        name, _, _ = path.name[1:].rsplit(".", 2)  # `.<name>.<random>.tmp`
        if isinstance(names, str):
            is_leftover = re.fullmatch(names, name) is not None
        else:
            is_leftover = name in names
        if is_leftover:
            path.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as JSON, atomically."""
    # Lone surrogates are written as JSON's own escapes.
    with atomic_write(path, errors="backslashreplace") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


def read_text(path: str | Path, kind: str = "text") -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 with a byte order mark.

    A byte order mark is removed. Line ends are not changed.

    Args:
        kind: description of a valid file, for messages.
    Raises:
        DataError: the file is missing, is not text, or has another encoding. The message names the
            line.
    """
    with reading(path):
        content = Path(path).read_bytes()
    # A byte order mark alone is not taken for UTF-16.
    has_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if has_mark and len(content) > 2 else "utf-8-sig"
    try:
        text = content.decode(encoding)
        bad_position = text.find("\0")
        problem = "a zero byte"
    except UnicodeDecodeError as err:
        text = content.decode("latin-1")  # only to count lines
        bad_position = err.start
        bad_byte = content[bad_position]
        problem = f"byte {bad_position} is 0x{bad_byte:02x}, {err.reason}"
    if bad_position >= 0:
        until_there = text[: bad_position + 1]
        line = len(split_lines(until_there))
        raise DataError(
            f"{path}: not {kind} in UTF-8 (line {line}: {problem}). "
            "Convert it, for example with `iconv -t UTF-8 -f WINDOWS-1252` or `-f UTF-16LE`, make "
            "or download it again, or correct its path."
        )
    return text


def split_lines(text: str) -> list[str]:
    """Returns the lines of a text without line ends.

    Unlike `str.splitlines`, it splits only at newlines, not at characters such as U+2028. A byte
    order mark at the beginning of a line, which concatenated files may have, is removed.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removeprefix("\ufeff") for line in lines]


def read_lines(path: str | Path, kind: str = "text") -> list[str]:
    """Returns the lines of a text file, as `read_text` and `split_lines` do."""
    return split_lines(read_text(path, kind))


def read_json(path: str | Path) -> Any:
    """Returns the value in a JSON file.

    Raises:
        DataError: the file is missing or not valid JSON.
    """
    return parse_json(read_text(path, "valid JSON"), path)


def parse_json(text: str, name: str | Path) -> Any:
    """Returns the value of a JSON text.

    Args:
        name: name of the text, with which the error message begins.
    Raises:
        DataError: the text is not valid JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        # ValueError also for numbers that are too long.
        raise DataError(
            f"{name}: not valid JSON ({err}); make or download it again."
        ) from None


def file_hash(path: str | Path) -> str:
    """Returns the SHA-256 of a file, in hex.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_npy(
    path: str | Path, remedy: str, *, mmap_mode: Literal["r"] | None = None
) -> np.ndarray:
    """Returns the array of a `.npy` file.

    Args:
        remedy: what to do about a missing or damaged file, as a sentence.
        mmap_mode: "r" maps the file into memory, as for `np.load`. None reads it.
    Raises:
        DataError: the file is missing, unreadable or truncated, or holds something other than one
            array of numbers or strings.
    """
    with reading(path, remedy):
        try:
            array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        except NPY_ERRORS as err:
            # Only the first sentence. In the others NumPy recommends to run code from the file.
            reason = str(err).partition(". ")[0]
            raise DataError(
                f"{path}: not a complete .npy file ({reason}). {remedy}"
            ) from None
    if not isinstance(array, np.ndarray):
        raise DataError(
            f"{path}: must be an .npy file, but holds several arrays. {remedy}"
        )
    return array


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Returns the objects in a JSON Lines log. Lines that are cut short are left out.

    A missing file gives an empty list.
    """
    try:
        content = Path(path).read_bytes()
    except OSError:
        return []
    text = content.decode(errors="replace")
    rows = []
    for line in split_lines(text):
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler of None, numbers, strings, bytes, lists, tuples, dicts and sets.

    It refuses all classes and functions.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_plain_pickle(path: str | Path, *, arrays: bool = False) -> Any:
    """Returns the value in a pickle of plain values, such as the released meta and caption files.

    Args:
        arrays: also read NumPy arrays.
    Raises:
        DataError: the file is missing or truncated, or holds other values than plain ones.
    """
    unpickler = _ArrayUnpickler if arrays else _PlainUnpickler
    with reading(path), open(path, "rb") as file:
        try:
            return unpickler(file).load()
        except Exception as err:  # with damaged files pickle raises almost any error
            problem = str(err) or "it is damaged"
            raise DataError(
                f"{path}: only pickles of plain values (lists, dicts, strings, numbers) are read, "
                f"but {problem}. If you trust the file, save its values in another format, such as "
                "JSON or .npy."
            ) from None


class _ArrayUnpickler(_PlainUnpickler):
    """An unpickler of plain values and NumPy arrays of them.

    It also reads the pickled part of an `.npy` file of Python strings.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module in MULTIARRAY and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module in NUMERIC and name == "_frombuffer":
            return np.empty(0).__reduce_ex__(5)[0]
        return super().find_class(module, name)


def load_word_array(path: str | Path) -> list[str]:
    """Returns the words in a 1-D `.npy` file, stored as strings or as pickled Python strings.

    Raises:
        DataError: the file is damaged, or holds something other than a 1-D array of strings.
    """
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            _, _, dtype = np.lib.format.read_array_header_1_0(file)
            words = _ArrayUnpickler(file).load() if dtype.hasobject else np.load(path)
    except Exception as err:
        # With damaged files NumPy and pickle raise almost any error.
        raise DataError(
            f"{path}: must be an .npy file with a 1-D array of words, but {err}."
        ) from None
    values: list[Any] = [None]
    if isinstance(words, np.ndarray) and words.ndim == 1:
        values = words.tolist()
    if not all(isinstance(value, str) for value in values):
        raise DataError(
            f"{path}: must hold a 1-D array of words, but holds something else."
        )
    return values
