"""Preparation and inference run without what only POSIX systems or only Linux have.

Windows has no `fork`, no signals of batch systems, and no modules such as `fcntl`. The tests remove
these from Python after the libraries are imported, and before this project is. Signals that Python
and torch use to start processes on this system stay.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.config import save_resolved
from mmpt.tasks import Task
from tests.support.jobs import SCORES, evaluation
from tests.support.paths import ROOT

pytestmark = pytest.mark.spawn

TOKENS = "scripts/text_token_extractor/configs/bert-base-uncased.yaml"
LIBRARIES = (
    "av faiss fairseq_cli.train filelock huggingface_hub matplotlib.pyplot numpy psutil rich "
    "submitit torch torch.distributed.launcher.api transformers typer"
)
HIDE = f"""
import importlib, multiprocessing, os, pkgutil, signal, sys

for name in {LIBRARIES.split()}:
    importlib.import_module(name)
multiprocessing.set_start_method("spawn", force=True)
for name in "fcntl resource termios tty pwd grp".split():
    sys.modules[name] = None
for name in "fork forkpty register_at_fork sched_getaffinity setsid killpg getpgid".split():
    delattr(os, name)
for name in (
    "SIGUSR1 SIGUSR2 SIGHUP SIGKILL SIGALRM SIGBUS SIGQUIT setitimer alarm"
).split():
    delattr(signal, name)
sys.path.insert(0, {str(ROOT)!r})
"""


def run_hidden(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs code in a process without the parts of POSIX."""
    return subprocess.run(
        [sys.executable, "-c", HIDE + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_modules_can_be_imported() -> None:
    done = run_hidden("""
import mmpt
for module in pkgutil.walk_packages(mmpt.__path__, "mmpt."):
    # The first is a program. Gradio looks at the system. The others belong to trainings.
    is_left_out = module.name in ("mmpt.__main__", "mmpt.app.page")
    if not is_left_out and ".fairseqmm" not in module.name:
        importlib.import_module(module.name)
        print(module.name)
""")
    assert done.returncode == 0, done.stderr
    assert {"mmpt.cli.launch", "mmpt.cli.embed"} <= set(done.stdout.split())


def test_training_is_refused_at_once() -> None:
    done = run_hidden("""
from mmpt.cli.main import main
print(main(["train", "--help"]), main(["train", "nowhere.yaml"]), main(["demo"]))
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("0 2 2\n")
    assert done.stderr.count("error: `mmpt ") == 2
    assert "WSL 2" in done.stderr


def test_data_is_prepared_and_a_model_scored(corpus: Path, tmp_path: Path) -> None:
    """Workers are started by spawn, as on Windows and macOS."""
    (tmp_path / "raw").mkdir()
    for split in ("train", "val"):
        for video in (corpus / f"how2_s3d_{split}.lst").read_text().split():
            np.save(tmp_path / "raw" / f"{video}.npy", np.zeros((9, 512), np.float16))
    pack = f"pack --features raw --target feat --train-list {corpus}/how2_s3d_train.lst"
    pack += f" --val-list {corpus}/how2_s3d_val.lst --shard-size 20 --workers 2"
    tokenize = f"tokenize {ROOT}/{TOKENS} --workers 2 dataset.bert_name={corpus}/bert"
    tokenize += f" dataset.caption_pkl_path={corpus}/captions.json"
    tokenize += " dataset.target_dir=feat"
    evaluation_yaml = tmp_path / "scores.yaml"
    config = evaluation(
        SCORES,
        corpus,
        f"test_path={corpus}/val_clips.json",
        f"{tmp_path}/checkpoint.pt",
        "scores",
    )
    model = Task.from_config(config).build_model(pretrained=False)
    torch.save(model.state_dict(), tmp_path / "checkpoint.pt")
    # Loader workers get the data set, too.
    save_resolved(config.with_option("dataset", "num_workers", 1), evaluation_yaml)
    (tmp_path / "texts.txt").write_text("one text")
    commands = [
        pack,
        tokenize,
        "predict scores.yaml --device cpu",
        "embed --model scores.yaml --checkpoint checkpoint.pt --texts texts.txt "
        "--out vectors.npz --device cpu",
    ]
    code = f"""
if __name__ == "__main__":
    from mmpt.cli.main import main
    for command in {commands}:
        print(main(command.split()))
"""
    done = run_hidden(code, tmp_path)
    assert done.returncode == 0, done.stderr
    codes = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert codes == ["0"] * len(commands), done.stderr
