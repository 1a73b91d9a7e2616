"""From video files and captions to a trained checkpoint, with the commands that a user types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from mmpt.config import load_config
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.jobs import ROOT, launch
from tests.made_videos import Clip, regular_times, write_audio, write_video

SECONDS = {"tea": 2, "pan.v2": 1.5, "onion": 2, "salt": 1}
CUES = (
    ("00:00:00.200", "00:00:01.000", "chop the onion"),
    ("00:00:01.000", "00:00:02.000", "put it in the pan"),
)


def make_media(folder: Path) -> None:
    """Four videos with captions in three forms, one without captions, one without pictures, and
    lost captions.
    """
    folder.mkdir()
    for number, (name, seconds) in enumerate(SECONDS.items()):
        clip = Clip(width=(64, 90)[number % 2], height=(90, 64)[number % 2])
        write_video(folder / f"{name}.{('mp4', 'mkv')[number % 2]}", regular_times(seconds), clip)
    write_video(folder / "silent.mp4", regular_times(1), Clip(width=64, height=64))
    write_audio(folder / "radio.mp4")
    vtt = "WEBVTT\n\n" + "\n".join(f"{start} --> {end}\n{text}\n" for start, end, text in CUES)
    srt = "\n".join(
        f"{number}\n{start} --> {end}\n{text}\n".replace(".", ",")
        for number, (start, end, text) in enumerate(CUES, 1)
    )
    segments = [
        {"start": 0.2, "end": 1.0, "text": CUES[0][2]},
        {"start": 1.0, "end": 2.0, "text": CUES[1][2]},
    ]
    for name in ("tea.en.vtt", "onion.vtt", "radio.vtt", "lost.vtt"):
        (folder / name).write_text(vtt)
    (folder / "pan.v2.srt").write_text(srt)
    (folder / "salt.json").write_text(json.dumps({"segments": segments}))


def prepare(corpus: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["--videos", folder / "raw", "--captions", folder / "raw", "--out", folder / "mine"]
    arguments += [
        "--yaml",
        folder / "pretrain.yaml",
        "--bert-name",
        corpus / "bert",
        "--random-weights",
    ]
    return subprocess.run(
        [sys.executable, "scripts/prepare.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_from_files_to_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    make_media(tmp_path / "raw")
    done = prepare(corpus, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^videos +2 +2$", done.stdout, re.MULTILINE)

    report = json.loads((tmp_path / "mine/report.json").read_text())
    assert report["videos_without_captions"] == {"silent": "no caption file"}
    assert list(report["videos_without_features"]) == ["radio"]
    assert [Path(path).name for path in report["captions_without_video"]] == ["lost.vtt"]
    for name, seconds in SECONDS.items():
        features = np.load(tmp_path / "mine/feat" / f"{name}.npy")
        assert features.shape == (np.ceil(seconds), 512)

    shards = tmp_path / "mine/shards"
    before = {path: path.read_bytes() for path in shards.rglob("*.npy")}
    (shards / "train_0_data.npy").unlink()  # a rerun mends it and leaves the rest alone
    assert prepare(corpus, tmp_path).returncode == 0
    assert {path: path.read_bytes() for path in shards.rglob("*.npy")} == before

    run = tmp_path / "run"
    where = [
        f"fairseq.checkpoint.save_dir={run}",
        f"eval.save_path={run}",
        "fairseq.optimization.max_epoch=1",
    ]
    trained = launch([tmp_path / "pretrain.yaml", *where])
    assert trained.returncode == 0, trained.stdout[-2000:] + trained.stderr[-2000:]
    config = load_config(tmp_path / "pretrain.yaml")
    # The recipe's, through `includes`.
    assert config.loss.sequence_contrast.sequence_contrast_weight == 0.1
    weights = load_checkpoint(run / "checkpoint_last.pt")["model"]
    assert all(np.isfinite(tensor.float().numpy()).all() for tensor in weights.values())
