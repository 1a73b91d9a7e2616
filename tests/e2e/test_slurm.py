"""Training runs on a real SLURM cluster of two nodes.

The runs are preempted and then finish, run out of time, are cancelled, or end with a user's
mistake.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.jobs import QUICK, VIDEOCLIP, corpus_overrides, train
from tests.support.slurm_cluster import missing_program, slurm_cluster
from tests.support.slurm_jobs import Cluster, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.spawn]

EPOCHS = [
    "fairseq.optimization.max_epoch=2",
    "fairseq.checkpoint.save_interval_updates=2",
]
SLOW = ["loss.loss_cls=tests.support.slow_loss.SlowLoss", "loss.pause_s=0.7"]


def submit(cluster: Cluster, corpus: Path, save_dir: Path, *more: str) -> str:
    """Submits a training run, and returns the id of its job."""
    words = [VIDEOCLIP, *corpus_overrides(corpus, save_dir), *QUICK, *EPOCHS, *more]
    return cluster.submit(words, save_dir)


def weights(save_dir: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(save_dir / "checkpoint_last.pt")["model"]


def assert_identical(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def log_of(save_dir: Path, job: str) -> str:
    return (save_dir / "slurm" / f"{job}.log").read_text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := missing_program():
        pytest.skip(
            f"the program `{missing}` is not installed (apt-get install slurm-wlm)"
        )
    try:
        with slurm_cluster(tmp_path_factory.mktemp("slurm")) as env:
            yield Cluster(env)
    except OSError as err:
        pytest.skip(str(err))


@pytest.fixture(scope="module")
def expected(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    """The weights after training in two processes on one machine."""
    save_dir = tmp_path_factory.mktemp("runs") / "two"
    train(VIDEOCLIP, corpus, save_dir, *EPOCHS, jobtype="local_2")
    return weights(save_dir)


def test_a_preempted_job_is_requeued_and_continues(
    cluster: Cluster, corpus: Path, tmp_path: Path, expected: dict[str, torch.Tensor]
) -> None:
    job = submit(cluster, corpus, tmp_path, *SLOW)
    wait_until((tmp_path / "checkpoint_1_2.pt").exists)
    started = time.monotonic()
    cluster.preempt()
    assert time.monotonic() - started < 20  # long before the end of the grace time
    cluster.wait_for_restart(job)
    cluster.start_again(job)
    cluster.wait(job, "COMPLETED")
    log = log_of(tmp_path, job)
    assert f"Requeued job {job}" in log
    assert f"saved {tmp_path}/checkpoint_last.pt after update" in log
    assert f"continuing from {tmp_path}/checkpoint_last.pt" in log
    # Two nodes give the same result as two processes on one machine.
    assert_identical(weights(tmp_path), expected)


def test_a_job_that_runs_out_of_time_stops_early_and_is_requeued(
    cluster: Cluster, corpus: Path, tmp_path: Path
) -> None:
    """The test of preemption shows that a requeued job continues."""
    endless = [*SLOW, "fairseq.optimization.max_epoch=1000"]
    job = submit(
        cluster, corpus, tmp_path, *endless, "slurm.time=3600", "slurm.signal=55"
    )
    wait_until((tmp_path / "checkpoint_1_2.pt").exists)
    cluster.end_soon(job)
    cluster.wait_for_restart(job)
    assert "stopped by SIG" in log_of(tmp_path, job)
    cluster.run("scancel", job)
    cluster.wait(job, "CANCELLED")


def test_the_log_and_the_exit_code_report_a_mistake(
    cluster: Cluster, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text((corpus / "how2_s3d_train.lst").read_text())
    mistake = [
        f"dataset.train_path={tmp_path}/list",
        f"slurm.setup=[rm {tmp_path}/list]",
    ]
    job = submit(cluster, corpus, tmp_path, *mistake)
    assert cluster.wait(job, "FAILED")["ExitCode"] == "2:0"
    log = log_of(tmp_path, job)
    assert f"{tmp_path}/list (`dataset.train_path`)" in log
    assert "Traceback" not in log
