"""`memory` in whole jobs: too little is a mistake of the user, and what is chosen is logged and obeyed."""

from __future__ import annotations

import re
from pathlib import Path

from tests.jobs import VIDEOCLIP, corpus_overrides, launch

QUICK = ["fairseq.common.log_interval=1", "fairseq.optimization.max_epoch=1"]


def test_too_little_memory_ends_a_job_with_one_message(corpus: Path, tmp_path: Path) -> None:
    run = launch([VIDEOCLIP, "--jobtype", "local_single", *corpus_overrides(corpus, tmp_path), *QUICK, "memory=100MB"])
    assert run.returncode == 2, run.stderr[-3000:]
    assert re.search(r"error: .*\n.*`memory` must be at least [\d.,]+ [MG]B for .*, but is 100 MB; ", run.stderr)
    assert "Traceback" not in run.stderr


def test_two_processes_train_with_recomputed_activations(corpus: Path, tmp_path: Path) -> None:
    overrides = [*corpus_overrides(corpus, tmp_path), *QUICK, "model.checkpoint_activations=true", "memory=4GB"]
    run = launch([VIDEOCLIP, "--jobtype", "local_small", *overrides])
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    log = run.stdout + run.stderr
    chosen = (
        r"memory 4.0 GB in each of 2 processes: activations of 64 clips take at most .*, so they are recomputed in "
        r"chunks of 16; loss tiles "
    )
    assert len(re.findall(chosen, log)) == 1  # the first process says it for both
    assert re.search(r"\| valid \|.* loss [\d.]+", log)
