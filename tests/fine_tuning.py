"""Fine-tuning as a user would, from the recorded tiny checkpoint on the files of
tests/parity/e2e_data.py.
"""

from __future__ import annotations

from pathlib import Path

from tests.jobs import launch
from tests.tiny_bert import GOLDEN

PRETRAINED = GOLDEN / "checkpoint_norton_tiny.pt"


def tiny_model(files: Path) -> list[str]:
    """Overrides that fit a YAML to the sizes of `PRETRAINED`."""
    return [
        f"dataset.bert_name={files}/tinybert",
        "model.num_hidden_video_layers=2",
        "fairseq.dataset.num_workers=0",
    ]


def on_cpu(save_dir: Path, num_epochs: int = 1) -> list[str]:
    """Overrides of a short training on the CPU that starts from `PRETRAINED`."""
    return [
        f"fairseq.checkpoint.restore_file={PRETRAINED}",
        f"fairseq.checkpoint.save_dir={save_dir}",
        "fairseq.common.cpu=true",
        "fairseq.common.fp16=false",
        "fairseq.common.log_interval=1",
        "fairseq.optimization.warmup_updates=1",
        f"fairseq.optimization.max_epoch={num_epochs}",
    ]


def train(yaml: str, overrides: list[str]) -> str:
    """Train and return what was printed."""
    run = launch([yaml, "--jobtype", "local_single", *overrides])
    log = run.stdout + run.stderr
    assert run.returncode == 0, log[-3000:]
    return log
