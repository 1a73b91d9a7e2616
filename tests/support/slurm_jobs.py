"""Training runs that are submitted to the SLURM cluster of the tests."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.forked import run_forked
from tests.support.paths import ROOT

NODES = ["slurm.nodes=2", "slurm.gpus_per_node=0", "slurm.cpus_per_task=1"]
URGENT = ["--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=true"]
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
DEADLINE_S = 300


class Cluster:
    """A running cluster.

    Args:
        env: the variables with which the programs of SLURM find it.
    """

    def __init__(self, env: Mapping[str, str]):
        self.env = os.environ | env

    def run(self, *command: str) -> str:
        """Returns the output of a command."""
        ran = subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def submit(self, words: Sequence[str], save_dir: Path) -> str:
        """Submits a training run on two nodes, and returns the id of the job.

        Args:
            words: the YAML and overrides.
            save_dir: its folder.
        """
        words = ["train", *words, *NODES, "--jobtype", "slurm"]
        done = run_forked("mmpt.cli.main:main", words, env=self.env)
        found = re.match(r"submitted job (\d+)\n", done.stdout)
        assert found, done.stdout + done.stderr
        assert f"log:    {save_dir}/slurm/{found[1]}.log" in done.stdout
        return found[1]

    def show(self, job: str) -> dict[str, str]:
        """Returns the information of SLURM about a job."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        shown = {}
        for word in words:
            name, _, shown[name] = word.partition("=")
        return shown

    def wait(self, job: str, state: str) -> dict[str, str]:
        """Waits until a job has a state, and returns the information of SLURM about it."""
        wait_until(lambda: self.show(job)["JobState"] in {state, *ENDED})
        shown = self.show(job)
        assert shown["JobState"] == state, shown
        return shown

    def has_ended(self, job: str) -> bool:
        """Returns whether a job has ended for good."""
        return self.show(job)["JobState"] in ENDED

    def preempt(self) -> None:
        """Runs a job with a higher priority on both nodes."""
        urgent = self.run("sbatch", "--parsable", *URGENT)
        self.wait(urgent.strip(), "COMPLETED")

    def set_time_limit(self, job: str, *, minutes: int) -> None:
        """Changes the time limit of a job, which counts from its start."""
        self.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")

    def end_soon(self, job: str, *, least_s: int = 20) -> None:
        """Lowers the time limit of a running job to `least_s` seconds from now.

        SLURM counts in whole minutes, so the job may have up to a minute more.
        """
        hours, minutes, seconds = map(int, self.show(job)["RunTime"].split(":"))
        run_s = 60 * (60 * hours + minutes) + seconds
        self.set_time_limit(job, minutes=(run_s + least_s) // 60 + 1)

    def wait_for_restart(self, job: str) -> None:
        """Waits until a job was requeued for the first time."""
        wait_until(lambda: self.show(job)["Restarts"] == "1")
        self.wait(job, "PENDING")

    def start_again(self, job: str) -> None:
        """Starts a job that was requeued. SLURM would wait for two minutes."""
        time.sleep(2)  # SLURM refuses a job that starts in the second in which it ended
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, at most `DEADLINE_S` seconds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not after {DEADLINE_S} s"
        time.sleep(0.2)
