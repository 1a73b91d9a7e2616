"""MSR-VTT, DiDeMo and YouCook2 through the scoring command, with features made so that every score
and rank is known.
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
from mmpt.reporting import Run
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
    return [" ".join(rng.choice(WORDS[:20], size=6)) for _ in range(count)]


def run(name: str, annotations: Path, features: Path, overrides: list[str], **options: bool) -> Run:
    files = [f"dataset.test_path={annotations}", f"dataset.vfeat_dir={features}"]
    config = load_config(f"{PROJECT}/{name}.yaml", [*overrides, *files])
    return predict(config, device=torch.device("cpu"), **options)


def write_videos(folder: Path, vectors: dict[str, np.ndarray]) -> None:
    """Write features that are `vectors[id]` on average, one to 40 seconds; only the first 16 count
    in every task.
    """
    folder.mkdir()
    rng = np.random.default_rng(3)
    for video, vector in vectors.items():
        wobble = rng.standard_normal((rng.integers(1, 16), len(vector)))
        np.save(folder / f"{video}.npy", (vector + wobble - wobble.mean(axis=0)).astype(np.float32))


def msrvtt_file(folder: Path, texts: list[str]) -> Path:
    path = folder / "msrvtt.csv"
    rows = [f"ret{n},msr{n},video{n},{text}\n" for n, text in enumerate(texts)]
    path.write_text("".join(["key,vid_key,video_id,sentence\n", *rows]))
    return path


def test_retrieval(tmp_path: Path) -> None:
    """Every fourth video shows what the next one's sentence says, if less clearly."""
    texts = sentences(42)
    overrides = make_oracle(tmp_path, texts)
    text_nD = sentence_vectors(tmp_path / "bert", texts)
    video_nD = text_nD.copy()
    video_nD[::4] = 0.9 * np.roll(text_nD, -1, axis=0)[::4]
    write_videos(tmp_path / "features", {f"video{n}": row for n, row in enumerate(video_nD)})
    annotations = msrvtt_file(tmp_path, texts)
    result = run("test_vtt_zs", annotations, tmp_path / "features", overrides)
    numbers = result.rows[0]["metrics"]["RetrievalMetric"]
    ranks = []
    for n, query in enumerate(text_nD):
        scores = [float(query @ video) for video in video_nD]
        ranks.append(sum(score > scores[n] + 1e-6 for score in scores))
    for k in (1, 5, 10):
        assert numbers[f"R{k}"] == pytest.approx(np.mean([rank < k for rank in ranks]), abs=1e-12)
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
    shown = {f"video{n}": text_n5D[n, (n % 5 + (n % 3 == 0)) % 5] for n in range(20)}
    write_videos(tmp_path / "features", shown)
    result = run("test_vttqa_zs", path, tmp_path / "features", overrides)
    assert result.rows[0]["metrics"]["QAMetric"]["acc"] == pytest.approx(13 / 20)


def test_moments(tmp_path: Path) -> None:
    """Each query's pieces get known scores, from which the published numbers follow by plain
    loops.
    """
    folder, queries = tmp_path, didemo_queries(60)
    annotations = folder / "didemo.json"
    annotations.write_text(json.dumps(queries))
    texts = [query["description"] for query in queries]
    overrides = make_oracle(folder, texts)
    text_nD = sentence_vectors(folder / "bert", texts)
    of_video: dict[str, list[int]] = {}
    for n, query in enumerate(queries):
        of_video.setdefault(stem(query), []).append(n)
    rng = np.random.default_rng(5)
    (folder / "features").mkdir()
    seconds, pieces = {}, {}
    for v, (video, members) in enumerate(of_video.items()):
        for n in members:
            pieces[n] = rng.permutation(6) + rng.random(6) / 4
            # Most queries find the piece that was chosen.
            pieces[n][queries[n]["times"][0][0]] += 6 * (n % 5 != 0)
        # A query asked twice has one score.
        first = {text_nD[n].tobytes(): n for n in reversed(members)}
        distinct = sorted(first.values())
        # [512, members]: features with exactly these scores.
        solve = np.linalg.pinv(text_nD[distinct])
        feature = (solve @ np.stack([np.repeat(pieces[n], 5) for n in distinct])).T
        seconds[video] = 30 if v % 7 else 17
        pieces |= {n: pieces[first[text_nD[n].tobytes()]] for n in members}
        name = video if v % 2 else queries[members[0]]["video"]  # both ways to name a file
        np.save(folder / "features" / f"{name}.npy", feature[: seconds[video]].astype(np.float32))
    result = run("test_didemo_zs", annotations, folder / "features", overrides)
    numbers = result.rows[0]["metrics"]["DiDeMoMetric"]
    second_scores, num_seconds = [], []
    for n, query in enumerate(queries):
        num_seconds.append(seconds[stem(query)])
        padding = np.zeros(30 - num_seconds[n])  # the oracle's padding scores zero
        second_scores.append([*np.repeat(pieces[n], 5)[: num_seconds[n]], *padding])
    times = [query["times"] for query in queries]
    published = naive_metrics(second_scores, num_seconds, times, corrected=False)
    for name, value in published.items():
        assert numbers[name] == pytest.approx(value, abs=1e-9)
    assert 0 < numbers["rank1"] < numbers["rank5"] < 1
    assert numbers["real-rank1"] > result.chance["DiDeMoMetric"]["real-rank1"]


def stem(query: dict) -> str:
    return query["video"].rpartition(".")[0]


def didemo_queries(count: int) -> list[dict]:
    rng = np.random.default_rng(2)
    return [
        {
            "video": f"{n // 3}@N0.{n // 3}.avi",
            "description": text,
            "times": [
                *[[n % 6, min(n % 6 + n % 2, 5)]] * 3,
                *np.sort(rng.integers(0, 6, (n % 3 + 1, 2))).tolist(),
            ],
        }
        for n, text in enumerate(sentences(count, seed=1))
    ]


def test_videos_without_features_are_named_and_scored_around(tmp_path: Path) -> None:
    texts = sentences(12)
    path = msrvtt_file(tmp_path, texts)
    overrides = make_oracle(tmp_path, texts)
    text_nD = sentence_vectors(tmp_path / "bert", texts)
    there = {f"video{n}": text_nD[n] for n in range(12) if n not in (3, 7)}
    write_videos(tmp_path / "features", there)
    message = r"2 of 12 test items have no features \(2 videos: video3, video7\)"
    with pytest.raises(DataError, match=message):
        run("test_vtt_zs", path, tmp_path / "features", overrides)
    scores = run("test_vtt_zs", path, tmp_path / "features", overrides, allow_missing=True)
    assert scores.rows[0]["metrics"]["RetrievalMetric"]["R1"] == 1
    assert (scores.rows[0]["num_items"], scores.rows[0]["num_missing"]) == (10, 2)


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


def youcook_metrics(
    name: str, annotations: Path, features: Path, overrides: list[str]
) -> dict[str, dict[str, float]]:
    model = [f"model.model_cls={ORACLE_BG}"] if name.endswith("bg_zs") else []
    return run(name, annotations, features, [*overrides, *model]).rows[0]["metrics"]


def test_paragraphs_find_their_video_unless_another_shows_their_captions(tmp_path: Path) -> None:
    """The first two of every five videos show each other's captions. Nothing else shows these, and
    all others show their own.
    """
    clips = random_clips(23)
    videos = list(clips)
    source = {video: video for video in videos}
    for v in range(0, len(videos) - 1, 5):
        source[videos[v]], source[videos[v + 1]] = videos[v + 1], videos[v]
    texts = [text for listed in clips.values() for _, _, text in listed]
    overrides = make_oracle(tmp_path, texts)
    vector = dict(zip(texts, sentence_vectors(tmp_path / "bert", texts), strict=True))

    def shown(video: str, k: int) -> np.ndarray:
        captions = clips[source[video]]
        return vector[captions[k * len(captions) // len(clips[video])][2]]

    write_features(tmp_path / "features", clips, shown)
    path = write_csv(tmp_path / "val.csv", clips)
    metrics: dict[str, dict[str, float]] = {}
    for name in ("test_youcook_zs", "test_youcook_fullvideo_zs", "test_youcook_fullvideo_bg_zs"):
        metrics |= youcook_metrics(name, path, tmp_path / "features", overrides)
    for name in (*UNORDERED, *ORDERED):
        assert metrics[FULL][name] == metrics[BG][name] == pytest.approx(13 / 23)
    num_right = sum(len(clips[video]) for video in videos if source[video] == video)
    numbers = metrics["RetrievalMetric"]
    assert numbers["R1"] == numbers["v2t-R1"] == pytest.approx(num_right / len(texts))


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
    name = "test_youcook_fullvideo_zs"
    numbers = youcook_metrics(name, path, tmp_path / "features", overrides)[FULL]
    assert [numbers[name] for name in ORDERED] == [1.0, 1.0]
    # A coin is thrown: two videos hold the same clips.
    assert all(numbers[name] < 0.8 for name in UNORDERED)
    assert all(numbers[name.replace("R1", "R5")] == 1.0 for name in UNORDERED)
