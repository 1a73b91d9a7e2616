"""Preparation and inference run without features that only POSIX systems or only Linux have.

Windows has no `fork`, no signals of batch systems, and no modules such as `fcntl`. The tests remove
these from Python after the libraries are imported, and before this project is. Signals that Python
and torch use to start processes on this system are kept.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.extract_jobs import SMALL
from tests.support.jobs import NORTON, corpus_overrides
from tests.support.paths import ROOT
from tests.support.small_evaluation import write_evaluation
from tests.support.videos import regular_times, write_video

pytestmark = pytest.mark.spawn

TOKENS = "scripts/text_token_extractor/configs/bert-base-uncased.yaml"
ENCODER = "tests.support.extract_jobs.MeanColours"
VTT = (
    "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nchop the onion\n\n"
    "00:00:02.000 --> 00:00:03.500\nput the onion in the pan\n"
)
LIBRARIES = (
    "av faiss fairseq_cli.train filelock gradio huggingface_hub matplotlib.pyplot numpy psutil "
    "rich submitit torch torch.distributed.launcher.api transformers typer"
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


def test_all_modules_can_be_imported_and_training_is_refused() -> None:
    done = run_hidden("""
import mmpt
from mmpt.cli.main import main
print(main(["train", "--help"]), main(["train", "nowhere.yaml"]), main(["demo"]))
for module in pkgutil.walk_packages(mmpt.__path__, "mmpt."):
    # The first module is a program. The others are only for training.
    if module.name != "mmpt.__main__" and ".fairseqmm" not in module.name:
        importlib.import_module(module.name)
        print(module.name)
""")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "0 2 2" in lines
    assert done.stderr.count("error: `mmpt ") == 2
    assert "WSL 2" in done.stderr
    assert {"mmpt.cli.launch", "mmpt.cli.embed", "mmpt.app.page"} <= set(lines)


@pytest.fixture
def folder(corpus: Path, tmp_path: Path) -> Path:
    """A folder with features, an evaluation YAML and its checkpoint, and two captioned videos."""
    (tmp_path / "projects").symlink_to(ROOT / "projects")
    (tmp_path / "raw").mkdir()
    for split in ("train", "val"):
        for video in (corpus / f"how2_s3d_{split}.lst").read_text().split():
            np.save(tmp_path / "raw" / f"{video}.npy", np.zeros((9, 512), np.float16))
    # The data set is also sent to loader workers.
    write_evaluation(tmp_path, corpus, num_workers=1)
    (tmp_path / "texts.txt").write_text("one text")
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "videos" / f"{name}.mp4", regular_times(4), SMALL)
        (tmp_path / "videos" / f"{name}.vtt").write_text(VTT)
    return tmp_path


def commands(corpus: Path) -> list[str]:
    """Returns a command line of every command that prepares data or uses a model."""
    model = "--model scores.yaml --checkpoint checkpoint.pt --device cpu"
    overrides = " ".join(corpus_overrides(corpus, Path("run")))
    return [
        f"pack --features raw --target feat --train-list {corpus}/how2_s3d_train.lst "
        f"--val-list {corpus}/how2_s3d_val.lst --shard-size 20 --workers 2",
        f"tokenize {ROOT}/{TOKENS} --workers 2 dataset.bert_name={corpus}/bert "
        f"dataset.caption_pkl_path={corpus}/captions.json dataset.target_dir=feat",
        f"check {NORTON} {overrides} --out checked --workers 2",
        f"config {NORTON} {overrides}",
        f"extract --vdir videos --fdir extracted --encoder {ENCODER} --device cpu",
        "prepare --videos videos --captions videos --out mine --yaml mine.yaml "
        f"--encoder {ENCODER} --bert-name {corpus}/bert",
        "predict scores.yaml --device cpu",
        "report scores.yaml --device cpu",
        f"embed {model} --texts texts.txt --out vectors.npz",
        f"index moments {model} --features raw",
        "search moments text --device cpu",
    ]


def test_every_other_command_works(corpus: Path, folder: Path) -> None:
    """Workers are started by spawn, as on Windows and macOS."""
    lines = commands(corpus)
    code = f"""
if __name__ == "__main__":
    from mmpt.cli.main import main
    for line in {lines}:
        print(main(line.split()), line.split()[0])

    # The inference API and the page.
    from urllib.request import urlopen
    from mmpt.app.page import serve_page
    from mmpt.app.video_files import VideoFiles
    from mmpt.inference.mmptmodel import MMPTModel
    from mmpt.inference.moment_index import MomentIndex

    MMPTModel.from_pretrained("scores.yaml", "checkpoint.pt").save_pretrained("saved")
    print(MMPTModel.from_pretrained("saved").encode_text(["text"]).shape)
    index = MomentIndex.load("moments", device="cpu")
    with serve_page(index, VideoFiles(index.windows.names, ["raw"])) as url:
        print(urlopen(url).status, "app")
"""
    done = run_hidden(code, folder)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    for line in lines:
        assert f"0 {line.split()[0]}" in printed, done.stderr
    assert "torch.Size([1, 32])" in printed
    assert "200 app" in printed
