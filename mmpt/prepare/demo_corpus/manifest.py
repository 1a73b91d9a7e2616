"""Makes the demo corpus unless it is there already, which a manifest of settings and hashes tells.

`demo.json` is written last and holds the settings and every file's hash. The same settings give the
same bytes. With other settings, or after a file was damaged, the corpus is made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.prepare.demo_corpus.files import write_corpus
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.prepare.demo_corpus.summary import summary_rows
from mmpt.utils.io import read_json, write_json, writing
from mmpt.utils.log import get_logger

MANIFEST = "demo.json"
FORMAT = 1
logger = get_logger(__name__)


def make_corpus(out: Path, settings: CorpusSettings) -> None:
    """Writes the corpus of `settings` to folder `out`, unless it is there.

    Raises:
        UserError: a writer refuses the data, or the folder cannot be written.
    """
    with writing(out):
        _make_corpus(out, settings)


def _make_corpus(out: Path, settings: CorpusSettings) -> None:
    manifest = out / MANIFEST
    fingerprint = _fingerprint(settings)
    old = _read_manifest(manifest)
    if old.get("fingerprint") == fingerprint and _is_intact(out, old["files"]):
        logger.info("%s: already made with these settings (fingerprint %s)", out, fingerprint[:12])
        return
    manifest.unlink(missing_ok=True)
    paths, counts = write_corpus(out, settings)
    files = {path.relative_to(out).as_posix(): _hash(path) for path in sorted(paths)}
    for stale in set(old.get("files", ())) - set(files):
        (out / stale).unlink(missing_ok=True)
    made = {"settings": dataclasses.asdict(settings), "counts": counts, "files": files}
    write_json(manifest, {"format": FORMAT, "fingerprint": fingerprint, **made})
    for row in summary_rows(counts):
        logger.info("%s", row)
    logger.info("%s: made, fingerprint %s", out, fingerprint[:12])


def _fingerprint(settings: CorpusSettings) -> str:
    """Hash what makes the corpus: the settings and the generator's own source."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest; an empty one when there is none that can be used."""
    try:
        found = read_json(path)
    except DataError:
        return {}
    good = (
        isinstance(found, dict)
        and found.get("format") == FORMAT
        and isinstance(found.get("files"), dict)
    )
    return found if good else {}


def _is_intact(out: Path, files: dict[str, str]) -> bool:
    return all(
        (out / name).is_file() and _hash(out / name) == digest for name, digest in files.items()
    )


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
