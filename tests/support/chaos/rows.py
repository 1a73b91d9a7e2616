"""The rows of the table: a kind of interruption, the training runs, and the number of trials."""

from dataclasses import dataclass

from tests.support.chaos import kinds
from tests.support.chaos.kinds import Kind
from tests.support.chaos.training_factory import Setting

SAVED = "fairseq.checkpoint.save_every_minutes=1e-6"
"""Override that saves the state after each update."""
ONE = (
    Setting(num_workers=2),
    Setting("Norton"),
    Setting("fine-tuning"),
    Setting(dropout=False),
)
"""Training runs with one process."""
TWO = (Setting(size=2, num_workers=1), Setting("Norton", size=2))
"""Training runs with two processes."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    """Name on the command line."""
    kind: Kind | None
    """The kind of interruption. None: SLURM preempts the job."""
    settings: tuple[Setting, ...]
    """The settings of the training runs, which take turns."""
    num_trials: int
    """Default number of trials."""


ROWS = (
    Row("kill", kinds.SIGKILL, ONE, 50),
    Row("kill-2", kinds.SIGKILL, TWO, 20),
    Row("kill-saved", kinds.SIGKILL_SAVED, (Setting(more=(SAVED,)),), 5),
    Row("term", kinds.SIGTERM, ONE[::-1], 20),
    Row("term-2", kinds.SIGTERM, TWO[::-1], 10),
    Row("interrupt", kinds.SIGINT, ONE, 5),
    Row("preemption", None, (Setting(size=2),), 10),
    Row("rank-asked", kinds.RANK_ASKED, TWO, 5),
    Row("rank-lost", kinds.RANK_LOST, TWO, 10),
    Row("rank-hung", kinds.RANK_HUNG, TWO, 5),
    Row("worker-killed", kinds.WORKER_KILLED, (Setting(num_workers=2),), 5),
    Row("disk-full", kinds.DISK_FULL, ONE, 5),
    Row("read-only", kinds.READ_ONLY, ONE, 5),
    Row("clock", kinds.CLOCK, ONE, 5),
    Row("damaged", kinds.DAMAGED, ONE, 5),
    Row("moved", kinds.MOVED, ONE[2:] + ONE[:2], 5),
)
