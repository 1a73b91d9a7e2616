"""Commands of data preparation that are killed and run again write the same bytes."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.e2e


def test_commands_that_are_killed_and_run_again_write_the_same_files(tmp_path):
    command = [sys.executable, "-m", "tests.support.killed_chain", str(tmp_path), "1"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "106 files, of which 0 differ" in done.stdout
