"""Files to download, and what the tests of downloads call and check."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from mmpt.utils.download import Outcome, Patience, Remote, fetch_file
from mmpt.utils.download_ledger import Ledger
from mmpt.utils.file_kinds import Kind

QUICK = Patience(tries=3, first_wait_s=0.001, longest_wait_s=0.002)


def npy(num_rows: int = 4000, seed: int = 0) -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(seed).integers(0, 256, (num_rows, 16), dtype=np.uint8))
    return file.getvalue()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, data in members.items():
            packed.writestr(name.replace("__", "/"), data)
    return file.getvalue()


DATA = npy()  # 64,128 bytes: 128 of header, 64,000 of content
OTHER = npy(seed=1)


def fetch(url: str, target: Path, ledger: Ledger, *more: str, kind: Kind = "npy", **options: object) -> Outcome:
    remote = Remote((url, *more), kind, options.pop("sha256", None))
    return fetch_file(remote, target, ledger, patience=options.pop("patience", QUICK), **options)


def assert_whole(target: Path, ledger: Ledger, data: bytes = DATA) -> None:
    """The bytes are right, recorded, and nothing else is left beside them."""
    assert target.read_bytes() == data
    record = ledger.get(target)
    assert record is not None
    assert (record.size, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [path.name for path in target.parent.iterdir()] == [target.name]
