"""Makes shards in processes. A rerun keeps those whose inputs are unchanged."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.utils.artefact import Artefact
from mmpt.utils.log import get_logger, progress
from mmpt.utils.workers import run_tasks

logger = get_logger(__name__)

Note = dict[str, Any]


class ShardJob(NamedTuple):
    """One shard to make."""

    note: Path
    """Written last."""
    stems: tuple[str, ...]
    """Stems of its ragged tensors."""
    mark: str
    """Fingerprint of the inputs."""
    write: Callable[[], Note]
    """Writes the tensors and returns the content of the note. It must be picklable. With
    `try_again` in the note, a rerun makes the shard again.
    """

    @property
    def artefact(self) -> Artefact:
        """The shard's files and its note."""
        files = [Path(f"{stem}_{part}.npy") for stem in self.stems for part in ("data", "starts")]
        return Artefact(self.note, tuple(files))


def make_missing(
    jobs: Sequence[ShardJob], workers: int, what: str, stale: Path | None = None
) -> list[Note]:
    """Makes the shards that are not finished, and returns the notes of all.

    Args:
        workers: processes; each makes one shard at a time.
        what: what is made, for the log.
        stale: a file that is removed before the first shard is made.
    """
    notes = [job.artefact.finished(job.mark) or {"try_again": True} for job in jobs]
    missing = [number for number, note in enumerate(notes) if note.get("try_again")]
    if len(missing) < len(jobs):
        logger.info("%d of %d shards are finished already", len(jobs) - len(missing), len(jobs))
    if missing and stale is not None:
        stale.unlink(missing_ok=True)
    done = run_tasks(_make, [jobs[number] for number in missing], workers)
    made = progress(done, len(missing), what, logger)
    for number, note in zip(missing, made, strict=True):
        notes[number] = note
    return notes


def _make(job: ShardJob) -> Note:
    job.artefact.begin()
    return job.artefact.finish(job.mark, **job.write())
