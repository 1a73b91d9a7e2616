"""The shards that a command makes. A rerun keeps those whose inputs are unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmpt.utils.artefact import Artefact
from mmpt.utils.log import get_logger, progress
from mmpt.utils.workers import run_tasks

logger = get_logger(__name__)

Note = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """One shard to make. It is sent to the process that makes it."""

    ids: tuple[str, ...]
    """The videos, in list order."""
    stems: tuple[str, ...]
    """Stems of its ragged tensors."""
    note: Path
    """Note that is written last."""
    mark: str
    """Fingerprint of the inputs."""

    @property
    def artefact(self) -> Artefact:
        """The shard's files and its note."""
        files = [Path(f"{stem}_{part}.npy") for stem in self.stems for part in ("data", "starts")]
        return Artefact(self.note, tuple(files))


Job = TypeVar("Job", bound=ShardJob)


def make_missing(
    jobs: Sequence[Job],
    make: Callable[[Job], Note],
    workers: int,
    what: str,
    stale: Path | None = None,
) -> list[Note]:
    """Makes the shards that are not finished, and returns the notes of all.

    Args:
        make: makes a shard and returns its note. It must be picklable.
        workers: processes; each makes one shard at a time.
        what: what is made, for the log.
        stale: a file that is removed before the first shard is made.
    """
    notes = {number: job.artefact.finished(job.mark) for number, job in enumerate(jobs)}
    missing = [number for number, note in notes.items() if note is None]
    if len(missing) < len(jobs):
        logger.info("%d of %d shards are finished already", len(jobs) - len(missing), len(jobs))
    if missing and stale is not None:
        stale.unlink(missing_ok=True)
    done = run_tasks(make, [jobs[number] for number in missing], workers)
    for place, note in progress(done, len(missing), what, logger):
        notes[missing[place]] = note
    return [note for note in notes.values() if note is not None]
