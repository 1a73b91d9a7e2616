"""Writes shards in several processes. A rerun keeps the shards whose inputs are unchanged.

Every shard has a stamp, a small JSON file that is removed before the shard is written, and written
after it. A shard whose stamp has the right fingerprint is therefore complete (mmpt/utils/artefact).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.utils.artefact import Artefact
from mmpt.utils.log import get_logger, progress
from mmpt.utils.workers import run_tasks

logger = get_logger(__name__)

Stamp = dict[str, Any]


class ShardJob(NamedTuple):
    """One shard to write."""

    stamp: Path
    """The stamp of the shard."""
    stems: tuple[str, ...]
    """Path stems of its ragged tensors."""
    fingerprint: str
    """Fingerprint of the shard's inputs."""
    write: Callable[[], Stamp]
    """Writes the tensors and returns the content of the stamp. It must be picklable. If the stamp
    has `try_again`, a rerun writes the shard again.
    """

    @property
    def artefact(self) -> Artefact:
        """The files of the shard and its stamp."""
        files: list[Path] = []
        for stem in self.stems:
            files += (Path(f"{stem}_data.npy"), Path(f"{stem}_starts.npy"))
        return Artefact(self.stamp, tuple(files))


def write_missing(
    jobs: Sequence[ShardJob], workers: int, what: str, stale: Path | None = None
) -> list[Stamp]:
    """Writes the shards that are not complete. Returns the stamps of all shards, in order.

    Args:
        jobs: all shards.
        workers: number of processes. Each writes one shard at a time.
        what: what is done, for the log.
        stale: a file that must not exist while shards are missing. It is removed first.
    """
    # A shard that is not complete counts as one that must be tried again.
    stamps = [
        job.artefact.finished(job.fingerprint) or {"try_again": True} for job in jobs
    ]
    missing = [number for number, stamp in enumerate(stamps) if stamp.get("try_again")]
    num_finished = len(jobs) - len(missing)
    if num_finished:
        logger.info("%s: %d of %d already", what, num_finished, len(jobs))
    if missing and stale is not None:
        stale.unlink(missing_ok=True)
    missing_jobs = [jobs[number] for number in missing]
    results = run_tasks(_write, missing_jobs, workers)
    new_stamps = progress(results, len(missing), what, logger)
    for number, stamp in zip(missing, new_stamps, strict=True):
        stamps[number] = stamp
    return stamps


def _write(job: ShardJob) -> Stamp:
    artefact = job.artefact
    artefact.begin()
    details = job.write()
    return artefact.finish(job.fingerprint, **details)
