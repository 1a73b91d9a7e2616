"""YouCook2 through the scoring command on a CSV, with features made so that the right answers are
known beforehand.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config import load_config
from tests.jobs import ROOT
from tests.oracle import make_oracle, sentence_vectors
from tests.oracle_bg import ORACLE_BG

PROJECT = "projects/retri/norton"
FULL, BG = "FullVideoRetrievalMetric", "FullVideoBGRetrievalMetric"
WORDS = [f"word{n}" for n in range(40)]
UNORDERED = ("R1", "OT-R1")
ORDERED = ("DTW-corrected-R1", "OTAM-corrected-R1")
Clips = dict[str, list[tuple[int, int, str]]]
"""Video id -> start, end (seconds) and text of its clips."""


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def read_csv(path: Path) -> Clips:
    clips: Clips = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            clips.setdefault(row["video_id"], []).append(
                (int(row["start"]), int(row["end"]), row["text"])
            )
    return clips


def write_csv(path: Path, clips: Clips) -> Path:
    rows = [
        f"{e},{s},226,{text},{video}" for video, listed in clips.items() for s, e, text in listed
    ]
    path.write_text("\n".join(["end,start,task,text,video_id", *rows]) + "\n")
    return path


def random_clips(num_videos: int) -> Clips:
    """Clips of 16 seconds that begin where a window does, with pauses of 16 or 32 seconds between
    them.
    """
    rng = np.random.default_rng(1)
    clips: Clips = {}
    for v in range(num_videos):
        starts = 16 * np.cumsum(rng.integers(2, 4, rng.integers(3, 8)))
        texts = [" ".join(rng.choice(WORDS, 5, replace=False)) for _ in starts]
        clips[f"video{v:06d}"] = [
            (int(s), int(s) + 16, text) for s, text in zip(starts, texts, strict=True)
        ]
    return clips


def write_features(folder: Path, clips: Clips, shown: Callable[[str, int], np.ndarray]) -> None:
    """Write a feature per second: `shown(video, k)` during clip k, the later of two that overlap;
    noise in between.
    """
    folder.mkdir()
    rng = np.random.default_rng(2)
    for video, listed in clips.items():
        feature = 0.1 * rng.standard_normal((max(end for _, end, _ in listed) + 9, 512)) / 512**0.5
        for k, (start, end, _) in enumerate(listed):
            feature[start:end] = shown(video, k)
        np.save(folder / f"{video}.npy", feature.astype(np.float32))


def run(
    name: str, annotations: Path, features: Path, overrides: Sequence[str]
) -> dict[str, dict[str, float]]:
    files = [f"dataset.test_path={annotations}", f"dataset.vfeat_dir={features}"]
    model = [f"model.model_cls={ORACLE_BG}"] if name.endswith("bg_zs") else []
    config = load_config(f"{PROJECT}/{name}.yaml", [*overrides, *files, *model])
    return predict(config, device=torch.device("cpu")).rows[0]["metrics"]


def swapped_videos(annotations: Path, folder: Path) -> tuple[dict[str, dict[str, float]], set[str]]:
    """Score videos of which the first two of every five show each other's captions; return also the
    videos that don't.

    Nothing but a swapped paragraph's partner shows its captions, and all others show their own.
    """
    clips = read_csv(annotations)
    videos = list(clips)
    source = {video: video for video in videos}
    for v in range(0, len(videos) - 1, 5):
        source[videos[v]], source[videos[v + 1]] = videos[v + 1], videos[v]
    texts = [text for listed in clips.values() for _, _, text in listed]
    overrides = make_oracle(folder, texts)
    vector = dict(zip(texts, sentence_vectors(folder / "bert", texts), strict=True))

    def shown(video: str, k: int) -> np.ndarray:
        captions = clips[source[video]]
        return vector[captions[k * len(captions) // len(clips[video])][2]]

    write_features(folder / "features", clips, shown)
    metrics: dict[str, dict[str, float]] = {}
    for name in ("test_youcook_zs", "test_youcook_fullvideo_zs", "test_youcook_fullvideo_bg_zs"):
        metrics |= run(name, annotations, folder / "features", overrides)
    return metrics, {video for video in videos if source[video] == video}


def test_paragraphs_find_their_video_unless_another_shows_their_captions(tmp_path: Path) -> None:
    clips = random_clips(23)
    metrics, right = swapped_videos(write_csv(tmp_path / "val.csv", clips), tmp_path)
    assert len(right) == 13
    for name in (*UNORDERED, *ORDERED):
        assert metrics[FULL][name] == metrics[BG][name] == pytest.approx(13 / 23)
    num_clips = {video: len(listed) for video, listed in clips.items()}
    expected = sum(num_clips[video] for video in right) / sum(num_clips.values())
    assert (
        metrics["RetrievalMetric"]["R1"]
        == metrics["RetrievalMetric"]["v2t-R1"]
        == pytest.approx(expected)
    )


def test_only_ordered_ways_tell_a_video_from_the_same_clips_backwards(tmp_path: Path) -> None:
    clips: Clips = {}
    for video, listed in random_clips(10).items():
        texts = [text for _, _, text in listed]
        clips[video] = listed
        clips[f"{video}-back"] = [
            (s, e, text) for (s, e, _), text in zip(listed, reversed(texts), strict=True)
        ]
    texts = [text for listed in clips.values() for _, _, text in listed]
    overrides = make_oracle(tmp_path, texts)
    vector = dict(zip(texts, sentence_vectors(tmp_path / "bert", texts), strict=True))
    write_features(tmp_path / "features", clips, lambda video, k: vector[clips[video][k][2]])
    path = write_csv(tmp_path / "val.csv", clips)
    numbers = run("test_youcook_fullvideo_zs", path, tmp_path / "features", overrides)[FULL]
    assert [numbers[name] for name in ORDERED] == [1.0, 1.0]
    # A coin is thrown: two videos hold the same clips.
    assert all(numbers[name] < 0.8 for name in UNORDERED)
    assert all(numbers[name.replace("R1", "R5")] == 1.0 for name in UNORDERED)
