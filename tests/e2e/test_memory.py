"""Jobs on a device that runs out of memory: steps are repeated, or one message is printed."""

import re
from pathlib import Path

import pytest

from tests.support.jobs import ONE_EPOCH, VIDEOCLIP, corpus_overrides, launch, train

pytestmark = pytest.mark.e2e

SMALL_DEVICE = "model.model_cls=tests.support.small_device.SmallDevice"


def test_one_of_two_processes_repeats_its_steps(corpus: Path, tmp_path: Path) -> None:
    # Batches of 64 clips.
    options = [
        "fairseq.optimization.update_freq=[2]",
        "clips_per_forward=48",
        ONE_EPOCH,
    ]
    log = train(
        VIDEOCLIP,
        corpus,
        tmp_path,
        *(SMALL_DEVICE, *options),
        jobtype="local_small",
        MMPT_TEST_FITS="20",
    )
    key = "model.checkpoint_activations"
    line = rf"out of memory with (\d+) clips at once; `{key}: auto` takes (\d+) from now on"
    assert re.findall(line, log) == [("64", "32"), ("32", "16")]
    assert re.search(r"\| valid \|.* loss [\d.]+", log)


def test_steps_with_gathered_negatives_are_not_repeated(
    corpus: Path, tmp_path: Path
) -> None:
    overrides = [
        *corpus_overrides(corpus, tmp_path),
        SMALL_DEVICE,
        "loss.gather_negatives=true",
    ]
    run = launch(
        [VIDEOCLIP, "--jobtype", "local_small", *overrides], MMPT_TEST_FITS="20"
    )
    assert run.returncode in (1, 2), run.stderr[
        -3000:
    ]  # the exit code of the process that ends first
    assert (
        "With `loss.gather_negatives` the processes wait for each other in a step"
        in run.stderr
    )
