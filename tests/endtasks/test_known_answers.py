"""Scores of MSR-VTT, DiDeMo and YouCook2 with features for which every score and rank is known.

The scores are computed by the scoring command.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config import load_config
from mmpt.errors import DataError
from mmpt.reporting import EvaluationRun
from tests.support.naive_moments import naive_metrics
from tests.support.oracle import ORACLE_BG, make_oracle, sentence_vectors
from tests.support.paths import ROOT

PROJECT = "projects/retri/norton"
WORDS = [f"word{n}" for n in range(40)]
FULL, BG = "FullVideoRetrievalMetric", "FullVideoBGRetrievalMetric"
UNORDERED = ("R1", "OT-R1")
ORDERED = ("DTW-corrected-R1", "OTAM-corrected-R1")
Clips = dict[str, list[tuple[int, int, str]]]
"""Video id -> start, end (seconds) and text of its clips."""


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        words = rng.choice(WORDS[:20], size=6)
        made.append(" ".join(words))
    return made


def run(
    name: str, annotations: Path, features: Path, overrides: list[str], **options: bool
) -> EvaluationRun:
    files = [f"dataset.test_path={annotations}", f"dataset.vfeat_dir={features}"]
    config = load_config(f"{PROJECT}/{name}.yaml", [*overrides, *files])
    return predict(config, device=torch.device("cpu"), **options)


def write_videos(folder: Path, vectors: dict[str, np.ndarray]) -> None:
    """Writes features of 1 to 15 seconds. Their mean is `vectors[id]`."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for video, vector in vectors.items():
        num_seconds = rng.integers(1, 16)
        noise = rng.standard_normal((num_seconds, len(vector)))
        feature = vector + noise - noise.mean(axis=0)
        np.save(folder / f"{video}.npy", feature.astype(np.float32))


def msrvtt_file(folder: Path, texts: list[str]) -> Path:
    lines = ["key,vid_key,video_id,sentence"]
    for n, text in enumerate(texts):
        lines.append(f"ret{n},msr{n},video{n},{text}")
    path = folder / "msrvtt.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_retrieval(tmp_path: Path) -> None:
    """Every fourth video shows the sentence of the next video, but less clearly."""
    texts = sentences(42)
    overrides = make_oracle(tmp_path, texts)
    text_nD = sentence_vectors(tmp_path / "bert", texts)
    next_text_nD = np.roll(text_nD, -1, axis=0)
    video_nD = text_nD.copy()
    video_nD[::4] = 0.9 * next_text_nD[::4]
    write_videos(
        tmp_path / "features", {f"video{n}": row for n, row in enumerate(video_nD)}
    )
    annotations = msrvtt_file(tmp_path, texts)
    result = run("test_vtt_zs", annotations, tmp_path / "features", overrides)
    numbers = result.rows[0]["metrics"]["RetrievalMetric"]
    ranks = []
    for n, query in enumerate(text_nD):
        scores = [float(query @ video) for video in video_nD]
        larger = [score for score in scores if score > scores[n] + 1e-6]
        ranks.append(len(larger))
    for k in (1, 5, 10):
        share = np.mean([rank < k for rank in ranks])
        assert numbers[f"R{k}"] == pytest.approx(share, abs=1e-12)
    assert numbers["MR"] == np.median(ranks) + 1 == 1
    assert numbers["R1"] == pytest.approx(31 / 42)  # all but every fourth


def test_multiple_choice(tmp_path: Path) -> None:
    """Every third video shows a wrong answer."""
    texts = sentences(100)
    path = tmp_path / "qa.csv"
    lines = ["\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"]
    for n in range(20):
        answers = "\t".join(texts[5 * n : 5 * n + 5])
        lines.append(f"{n}\tmsr{n}\t{answers}\t{n % 5}\n")
    path.write_text("".join(lines))
    overrides = make_oracle(tmp_path, texts)
    text_n5D = sentence_vectors(tmp_path / "bert", texts).reshape(20, 5, -1)
    shown = {}
    for n in range(20):
        right = n % 5
        wrong = (right + 1) % 5
        answer = right if n % 3 else wrong
        shown[f"video{n}"] = text_n5D[n, answer]
    write_videos(tmp_path / "features", shown)
    result = run("test_vttqa_zs", path, tmp_path / "features", overrides)
    assert result.rows[0]["metrics"]["QAMetric"]["acc"] == pytest.approx(13 / 20)


def test_moments(tmp_path: Path) -> None:
    """The pieces of each query get known scores. Plain loops compute the numbers from them."""
    queries = didemo_queries(60)
    annotations = tmp_path / "didemo.json"
    annotations.write_text(json.dumps(queries))
    texts = [query["description"] for query in queries]
    overrides = make_oracle(tmp_path, texts)
    text_nD = sentence_vectors(tmp_path / "bert", texts)
    features = tmp_path / "features"
    features.mkdir()
    rng = np.random.default_rng(5)
    second_scores, num_seconds = [], []
    for first in range(0, 60, 3):  # a video has three queries
        members = range(first, first + 3)
        score_n6 = np.stack([piece_scores(queries[n], n, rng) for n in members])
        score_n30 = score_n6.repeat(5, axis=1)
        # Features [30, 512] with exactly these scores.
        feature = (np.linalg.pinv(text_nD[members]) @ score_n30).T
        seconds = 30 if first % 7 else 17
        score_n30[:, seconds:] = 0  # the oracle's padding scores zero
        second_scores += score_n30.tolist()
        num_seconds += [seconds] * 3
        # The names of some files include the suffix of the video.
        video = queries[first]["video"]
        name = video if first % 2 else video.removesuffix(".avi")
        np.save(features / f"{name}.npy", feature[:seconds].astype(np.float32))
    result = run("test_didemo_zs", annotations, features, overrides)
    numbers = result.rows[0]["metrics"]["DiDeMoMetric"]
    times = [query["times"] for query in queries]
    published = naive_metrics(second_scores, num_seconds, times, corrected=False)
    for name, value in published.items():
        assert numbers[name] == pytest.approx(value, abs=1e-9)
    assert 0 < numbers["rank1"] < numbers["rank5"] < 1
    assert numbers["real-rank1"] > result.chance["DiDeMoMetric"]["real-rank1"]


def piece_scores(query: dict, number: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the scores of the six pieces. For most queries, a chosen piece has the best score."""
    scores = rng.permutation(6) + rng.random(6) / 4
    first, _ = query["times"][0]
    if number % 5:
        scores[first] += 6
    return scores


def didemo_queries(count: int) -> list[dict]:
    """Returns queries of three per video. Three people agree, and one to three others do not."""
    rng = np.random.default_rng(2)
    queries = []
    for n, text in enumerate(sentences(count, seed=1)):
        first = n % 6
        last = min(first + n % 2, 5)
        others = np.sort(rng.integers(0, 6, (n % 3 + 1, 2)))
        query = {
            "video": f"{n // 3}@N0.{n // 3}.avi",
            "description": text,
            "times": [[first, last]] * 3 + others.tolist(),
        }
        queries.append(query)
    return queries


def test_videos_without_features_are_reported_and_may_be_left_out(
    tmp_path: Path,
) -> None:
    texts = sentences(12)
    path = msrvtt_file(tmp_path, texts)
    overrides = make_oracle(tmp_path, texts)
    text_nD = sentence_vectors(tmp_path / "bert", texts)
    vectors = {f"video{n}": vector for n, vector in enumerate(text_nD)}
    del vectors["video3"], vectors["video7"]
    write_videos(tmp_path / "features", vectors)
    message = r"2 of 12 test items have no features \(2 videos: video3, video7\)"
    with pytest.raises(DataError, match=message):
        run("test_vtt_zs", path, tmp_path / "features", overrides)
    scores = run(
        "test_vtt_zs", path, tmp_path / "features", overrides, allow_missing=True
    )
    assert scores.rows[0]["metrics"]["RetrievalMetric"]["R1"] == 1
    assert scores.rows[0]["num_items"] == 10
    assert scores.rows[0]["num_missing"] == 2


def write_csv(path: Path, clips: Clips) -> Path:
    lines = ["end,start,task,text,video_id"]
    for video, listed in clips.items():
        for start, end, text in listed:
            lines.append(f"{end},{start},226,{text},{video}")
    path.write_text("\n".join(lines) + "\n")
    return path


def random_clips(num_videos: int) -> Clips:
    """Returns clips of 16 seconds that begin together with a window.

    The pauses between them are 16 or 32 seconds long.
    """
    rng = np.random.default_rng(1)
    clips: Clips = {}
    for v in range(num_videos):
        num_clips = rng.integers(3, 8)
        starts = 16 * np.cumsum(rng.integers(2, 4, num_clips))
        listed = []
        for start in starts.tolist():
            words = rng.choice(WORDS, 5, replace=False)
            listed.append((start, start + 16, " ".join(words)))
        clips[f"video{v:06d}"] = listed
    return clips


def caption_vectors(
    folder: Path, clips: Clips
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Returns the overrides of an oracle that knows all captions, and the captions' vectors."""
    texts = []
    for listed in clips.values():
        texts += [text for _, _, text in listed]
    overrides = make_oracle(folder, texts)
    vectors = sentence_vectors(folder / "bert", texts)
    return overrides, dict(zip(texts, vectors, strict=True))


def write_features(
    folder: Path, clips: Clips, shown: Callable[[str, int], np.ndarray]
) -> None:
    """Writes a feature for each second.

    It is `shown(video, k)` in clip k. If clips overlap, it is from the later one. Between clips, it
    is noise.
    """
    folder.mkdir()
    rng = np.random.default_rng(2)
    for video, listed in clips.items():
        last_s = max(end for _, end, _ in listed)
        feature = 0.1 * rng.standard_normal((last_s + 9, 512)) / 512**0.5
        for k, (start, end, _) in enumerate(listed):
            feature[start:end] = shown(video, k)
        np.save(folder / f"{video}.npy", feature.astype(np.float32))


def youcook_metrics(
    name: str, annotations: Path, features: Path, overrides: list[str]
) -> dict[str, dict[str, float]]:
    if name.endswith("bg_zs"):
        overrides = [*overrides, f"model.model_cls={ORACLE_BG}"]
    result = run(name, annotations, features, overrides)
    return result.rows[0]["metrics"]


def test_paragraphs_find_their_video_unless_another_one_shows_the_captions(
    tmp_path: Path,
) -> None:
    """The first two of every five videos show each other's captions, which no other video shows.

    All other videos show their own captions.
    """
    clips = random_clips(23)
    videos = list(clips)
    source = {video: video for video in videos}
    for first, second in zip(videos[::5], videos[1::5], strict=True):
        source[first], source[second] = second, first
    overrides, vector = caption_vectors(tmp_path, clips)

    def shown(video: str, k: int) -> np.ndarray:
        captions = clips[source[video]]
        place = k * len(captions) // len(clips[video])
        _, _, text = captions[place]
        return vector[text]

    write_features(tmp_path / "features", clips, shown)
    path = write_csv(tmp_path / "val.csv", clips)
    metrics: dict[str, dict[str, float]] = {}
    for name in (
        "test_youcook_zs",
        "test_youcook_fullvideo_zs",
        "test_youcook_fullvideo_bg_zs",
    ):
        metrics |= youcook_metrics(name, path, tmp_path / "features", overrides)
    for name in (*UNORDERED, *ORDERED):
        assert metrics[FULL][name] == metrics[BG][name] == pytest.approx(13 / 23)
    num_right = sum(len(clips[video]) for video in videos if source[video] == video)
    num_clips = sum(map(len, clips.values()))
    numbers = metrics["RetrievalMetric"]
    assert numbers["R1"] == numbers["v2t-R1"] == pytest.approx(num_right / num_clips)


def test_only_order_aware_scores_distinguish_a_video_from_its_reversal(
    tmp_path: Path,
) -> None:
    clips: Clips = {}
    for video, listed in random_clips(10).items():
        backwards = []
        for (start, end, _), (_, _, text) in zip(listed, reversed(listed), strict=True):
            backwards.append((start, end, text))
        clips[video] = listed
        clips[f"{video}-back"] = backwards
    overrides, vector = caption_vectors(tmp_path, clips)

    def shown(video: str, k: int) -> np.ndarray:
        _, _, text = clips[video][k]
        return vector[text]

    write_features(tmp_path / "features", clips, shown)
    path = write_csv(tmp_path / "val.csv", clips)
    name = "test_youcook_fullvideo_zs"
    numbers = youcook_metrics(name, path, tmp_path / "features", overrides)[FULL]
    assert [numbers[name] for name in ORDERED] == [1.0, 1.0]
    # Two videos have the same clips, so the order of the two is random.
    assert all(numbers[name] < 0.8 for name in UNORDERED)
    assert all(numbers[name.replace("R1", "R5")] == 1.0 for name in UNORDERED)
