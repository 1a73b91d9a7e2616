"""Whole jobs in half precision on the CPU, one of them compiled.

Their checkpoints also load into eager float32 models.
"""

import re
from pathlib import Path

import pytest
import torch

from mmpt.cli.job import HALF_PRECISION, training_command
from mmpt.config import load_config
from mmpt.config.yaml_files import write_yaml
from mmpt.errors import ConfigError
from mmpt.tasks import Task
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.forked import run_forked
from tests.support.jobs import ONE_EPOCH, QUICK, VIDEOCLIP, corpus_overrides
from tests.support.paths import ROOT

pytestmark = pytest.mark.e2e


def train(
    corpus: Path, save_dir: Path, *more: str, resume: bool = False
) -> list[float]:
    """Trains in half precision on the CPU, where the launcher would use float32 instead.

    Returns:
        The loss of each epoch.
    """
    curves = f"fairseq.common.tensorboard_logdir={save_dir}/run"
    config = load_config(
        ROOT / VIDEOCLIP, [*corpus_overrides(corpus, save_dir), *QUICK, curves, *more]
    )
    write_yaml(save_dir / "config.yaml", config.to_dict())
    path = str(save_dir / "config.yaml")
    command = training_command(config, path, 1, 1, 0, resume=resume)
    half = [name for name in HALF_PRECISION if config.option("common", name)]
    command += [f"--{name.replace('_', '-')}" for name in half]
    run = run_forked("mmpt.train:main", command, env={"LOGLEVEL": "INFO"})
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    log = run.stdout + run.stderr
    return [float(loss) for loss in re.findall(r"\| train \| .*?\| loss ([\d.]+)", log)]


def test_a_compiled_bfloat16_run_learns_and_continues_eagerly(
    corpus: Path, tmp_path: Path
) -> None:
    half = "fairseq.common.bf16=true"
    (first,) = train(corpus, tmp_path, half, "model.compile=true", ONE_EPOCH)
    # float32 gives 8.764; measured 8.770
    assert first == pytest.approx(8.764, abs=0.05)
    (second,) = train(
        corpus, tmp_path, half, "fairseq.optimization.max_epoch=2", resume=True
    )
    assert second < first
    check_loads_into_float32(corpus, tmp_path)


def test_a_float16_run_learns(corpus: Path, tmp_path: Path) -> None:
    options = ["fairseq.common.memory_efficient_fp16=true", ONE_EPOCH]
    (loss,) = train(corpus, tmp_path, *options)
    assert loss == pytest.approx(8.764, abs=0.01)  # measured 8.763
    check_loads_into_float32(corpus, tmp_path)


def check_loads_into_float32(corpus: Path, save_dir: Path) -> None:
    """Asserts that the weights are float32 and have the names of a model that is not compiled."""
    saved = load_checkpoint(save_dir / "checkpoint_last.pt")["model"]
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    model = Task.from_config(
        load_config(ROOT / VIDEOCLIP, corpus_overrides(corpus, save_dir))
    ).build_model(pretrained=False)
    model.load_state_dict(
        {key.removeprefix("mmmodel."): value for key, value in saved.items()},
        strict=True,
    )


def test_the_mixed_precision_of_fairseq_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"`fairseq.common.amp` must be false: .* set"
    ):
        load_config(ROOT / VIDEOCLIP, ["fairseq.common.amp=true"])
