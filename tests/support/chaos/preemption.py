"""Trials on a SLURM cluster: a job is preempted, requeued, and compared."""

import random
import time

from tests.support.chaos.phases import done_updates
from tests.support.chaos.training_factory import (
    RECIPES,
    Setting,
    TrainingFactory,
    phases_file,
    remove,
)
from tests.support.chaos.trial import Outcome, saved_updates, wait_for_update
from tests.support.interruptions import differences
from tests.support.slurm_jobs import Cluster, wait_until

KIND = "SLURM preemption"
PAUSE_S = 0.5
"""Pause before each batch. SLURM takes about a second to preempt a job."""
LOSS = "loss.loss_cls=tests.support.chaos.recorded_loss.RecordedLoss"
LAST_UPDATES = 4
"""Number of last updates in which a job is not preempted, because it could end before that."""


def run_preemption(
    cluster: Cluster,
    factory: TrainingFactory,
    row: str,
    number: int,
    setting: Setting,
    rng: random.Random,
) -> Outcome:
    """Runs a trial with a job of two nodes with one process each."""
    whole = factory.whole(setting)
    total = max(line.num_updates for line in whole.lines)
    save_dir = factory.folder / f"{row}-{number}"
    remove(save_dir)
    file = phases_file(save_dir)
    words = [RECIPES[setting.recipe], *factory.overrides(setting)]
    words += [LOSS, f"loss.pause_s={PAUSE_S}", f"loss.phases={file}"]
    words.append(f"fairseq.checkpoint.save_dir={save_dir}")
    job = cluster.submit(words, save_dir)
    preempted_after = rng.randrange(1, total - LAST_UPDATES)
    wait_until(lambda: done_updates(file) >= preempted_after)
    time.sleep(rng.uniform(0, PAUSE_S))
    cluster.preempt()
    cluster.wait_for_restart(job)
    lost = max(done_updates(file) - saved_updates(save_dir), 0)
    begin = time.monotonic()
    cluster.start_again(job)
    recovery_s = wait_for_update(file, begin, lambda: cluster.has_ended(job))
    cluster.wait(job, "COMPLETED")
    different = differences(whole.save_dir, save_dir)
    if not different:
        remove(save_dir)
    return Outcome(
        row,
        number,
        KIND,
        str(setting),
        setting.size,
        "",
        [],
        different,
        lost,
        recovery_s,
    )
