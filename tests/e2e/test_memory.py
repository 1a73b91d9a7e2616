"""Whole jobs on a device that is out of memory: they repeat steps, or end with one message."""

from __future__ import annotations

import re
from pathlib import Path
from subprocess import CompletedProcess

from tests.jobs import VIDEOCLIP, corpus_overrides, launch

QUICK = ["fairseq.common.log_interval=1", "fairseq.optimization.max_epoch=1"]


def run_job(
    corpus: Path, save_dir: Path, *more: str, fits: int, jobtype: str
) -> CompletedProcess[str]:
    """Train on batches of 64 clips."""
    model = "model.model_cls=tests.small_device.SmallDevice"
    overrides = [*corpus_overrides(corpus, save_dir), *QUICK, model, *more]
    return launch([VIDEOCLIP, "--jobtype", jobtype, *overrides], MMPT_TEST_FITS=str(fits))


def test_one_of_two_processes_repeats_its_steps(corpus: Path, tmp_path: Path) -> None:
    options = ["fairseq.optimization.update_freq=[2]", "clips_per_forward=48"]
    run = run_job(corpus, tmp_path, *options, fits=20, jobtype="local_small")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    log = run.stdout + run.stderr
    key = "model.checkpoint_activations"
    told = rf"out of memory with (\d+) clips at once; `{key}: auto` takes (\d+) from now on"
    assert re.findall(told, log) == [("64", "32"), ("32", "16")]
    assert re.search(r"\| valid \|.* loss [\d.]+", log)


def test_a_device_on_which_nothing_fits_ends_the_job_with_one_message(
    corpus: Path, tmp_path: Path
) -> None:
    run = run_job(corpus, tmp_path, fits=0, jobtype="local_single")
    assert run.returncode == 2, run.stderr[-3000:]
    assert (
        "error: out of memory with `model.checkpoint_activations: auto`, even with one clip at a "
        "time (CUDA out of memory. Tried to allocate 2.00 GiB). Make the batch smaller"
    ) in run.stderr
    assert "Traceback" not in run.stderr


def test_with_gathered_negatives_no_step_is_repeated(corpus: Path, tmp_path: Path) -> None:
    options = ["loss.gather_negatives=true"]
    run = run_job(corpus, tmp_path, *options, fits=20, jobtype="local_small")
    assert run.returncode in (1, 2), run.stderr[-3000:]  # of the process that ends first
    assert "With `loss.gather_negatives` the processes wait for each other in a step" in run.stderr
    options.append("model.checkpoint_activations=16")
    run = run_job(corpus, tmp_path, *options, fits=20, jobtype="local_small")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
