"""Make the demo data: a small HowTo100M-like corpus whose truth is known, in the formats that training reads.

    python scripts/make_demo_data.py --out data/demo --seed 0 --num-videos 400 --num-val 64

Same flags, same bytes. `demo.json` is written last and holds the settings and every file's hash: a second run finds
nothing to do, other settings (or a damaged file) make the corpus anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import demo_corpus
from demo_corpus.files import write_corpus
from demo_corpus.settings import CorpusSettings, flag_of
from demo_corpus.summary import summary_rows

from mmpt.errors import DataError
from mmpt.utils.command import run_command
from mmpt.utils.io import read_json, write_json, writing
from mmpt.utils.log import get_logger

MANIFEST = "demo.json"
FORMAT = 1
logger = get_logger("make_demo_data")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = vars(_parser().parse_args(arguments))
    out = Path(options.pop("out"))
    return run_command(lambda: _make(out, CorpusSettings(**options)), stopped="run it again, the corpus is made anew")


def _make(out: Path, settings: CorpusSettings) -> None:
    with writing(out):
        make_demo_data(out, settings)


def make_demo_data(out: Path, settings: CorpusSettings) -> None:
    """Write the corpus of `settings` to folder `out`, unless it is there.

    Raises:
        UserError: a writer refuses the data.
        OSError: the folder cannot be written.
    """
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


def _parser() -> argparse.ArgumentParser:
    """One flag per field of `CorpusSettings`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--out", default="data/demo", help="folder to write to (%(default)s)")
    for field in dataclasses.fields(CorpusSettings):
        text = f"{field.metadata['help']} (%(default)s)"
        parser.add_argument(flag_of(field.name), type=type(field.default), default=field.default, help=text)
    return parser


def _fingerprint(settings: CorpusSettings) -> str:
    """Hash what makes the corpus: the settings and the generator's own source."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    for source in sorted(Path(demo_corpus.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest; an empty one when there is none that can be used."""
    try:
        found = read_json(path)
    except DataError:
        return {}
    good = isinstance(found, dict) and found.get("format") == FORMAT and isinstance(found.get("files"), dict)
    return found if good else {}


def _is_intact(out: Path, files: dict[str, str]) -> bool:
    return all((out / name).is_file() and _hash(out / name) == digest for name, digest in files.items())


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
