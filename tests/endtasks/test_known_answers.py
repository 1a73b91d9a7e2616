"""MSR-VTT and DiDeMo through the scoring command, with features made so that every score and rank
is known.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config import load_config
from mmpt.errors import DataError
from mmpt.reporting import Run
from tests.jobs import ROOT
from tests.oracle import make_oracle, sentence_vectors

PROJECT = "projects/retri/norton"
WORDS = [f"word{n}" for n in range(20)]


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=6)) for _ in range(count)]


def write_rows(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


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


def check_retrieval(annotations: Path, folder: Path) -> dict[str, float]:
    """Score an MSR-VTT file whose every fourth video shows what the next one's sentence says, if
    less clearly.
    """
    with annotations.open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [row["sentence"] for row in rows]
    overrides = make_oracle(folder, texts)
    text_nD = sentence_vectors(folder / "bert", texts)
    video_nD = text_nD.copy()
    video_nD[::4] = 0.9 * np.roll(text_nD, -1, axis=0)[::4]
    names = [row["video_id"] for row in rows]
    write_videos(folder / "features", dict(zip(names, video_nD, strict=True)))
    result = run("test_vtt_zs", annotations, folder / "features", overrides)
    numbers = result.rows[0]["metrics"]["RetrievalMetric"]
    ranks = []
    for n, query in enumerate(text_nD):
        scores = [float(query @ video) for video in video_nD]
        ranks.append(sum(score > scores[n] + 1e-6 for score in scores))
    for k in (1, 5, 10):
        assert numbers[f"R{k}"] == pytest.approx(np.mean([rank < k for rank in ranks]), abs=1e-12)
    assert numbers["MR"] == np.median(ranks) + 1
    return numbers


def check_choice(annotations: Path, folder: Path) -> float:
    """Score a multiple-choice file whose every third video shows a wrong answer."""
    with annotations.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    texts = [row[f"a{k}"] for row in rows for k in range(1, 6)]
    overrides = make_oracle(folder, texts)
    text_n5D = sentence_vectors(folder / "bert", texts).reshape(len(rows), 5, -1)
    shown = [(int(row["answer"]) + (n % 3 == 0)) % 5 for n, row in enumerate(rows)]
    videos = {
        f"video{row['vid_key'][3:]}": text_n5D[n, k]
        for n, (row, k) in enumerate(zip(rows, shown, strict=True))
    }
    write_videos(folder / "features", videos)
    result = run("test_vttqa_zs", annotations, folder / "features", overrides)
    accuracy = result.rows[0]["metrics"]["QAMetric"]["acc"]
    assert accuracy == pytest.approx(np.mean([n % 3 != 0 for n in range(len(rows))]), abs=1e-12)
    return accuracy


def check_moments(annotations: Path, folder: Path) -> dict[str, float]:
    """Score a DiDeMo file: each query's pieces get known scores, the published numbers follow by
    plain loops.
    """
    queries = json.loads(annotations.read_text())
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
    expected = [
        naive_moment(query, pieces[n], seconds[stem(query)]) for n, query in enumerate(queries)
    ]
    ranks, ious = zip(*expected, strict=True)
    wanted = {
        "rank1": np.mean(np.array(ranks) <= 1),
        "rank5": np.mean(np.array(ranks) <= 5),
        "miou": np.mean(ious),
    }
    assert {name: numbers[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)
    return numbers | {
        f"chance-{name}": value for name, value in result.chance["DiDeMoMetric"].items()
    }


def stem(query: dict) -> str:
    return query["video"].rpartition(".")[0]


def naive_moment(query: dict, piece_scores: np.ndarray, num_seconds: int) -> tuple[float, float]:
    """Mean of the three smallest ranks of chosen moments, and of the three largest IoUs of the best
    one.
    """
    # The oracle's padding scores zero.
    second = [piece_scores[s // 5] if s < num_seconds else 0.0 for s in range(30)]
    moments = [(a, b) for a in range(6) for b in range(a, 6) if 5 * a < num_seconds]
    moments.sort(key=lambda m: -np.mean(second[5 * m[0] : 5 * m[1] + 5]))
    chosen = [tuple(moment) for moment in query["times"]]
    ranks = sorted(1 + moments.index(moment) for moment in chosen if moment in moments)[:3]
    best = set(range(moments[0][0], moments[0][1] + 1))
    ious = [len(best & set(range(a, b + 1))) / len(best | set(range(a, b + 1))) for a, b in chosen]
    return (float(np.mean(ranks)) if ranks else np.inf), float(np.mean(sorted(ious)[-3:]))


def msrvtt_file(folder: Path, count: int) -> Path:
    texts = sentences(count)
    rows = [
        {"key": f"ret{n}", "vid_key": f"msr{n}", "video_id": f"video{n}", "sentence": t}
        for n, t in enumerate(texts)
    ]
    return write_rows(folder / "msrvtt.csv", rows)


def test_retrieval(tmp_path: Path) -> None:
    numbers = check_retrieval(msrvtt_file(tmp_path, 42), tmp_path)
    assert numbers["R1"] == pytest.approx(31 / 42)  # all but every fourth
    assert numbers["MR"] == 1


def test_multiple_choice(tmp_path: Path) -> None:
    texts = iter(sentences(100))
    rows = [
        {
            "": str(n),
            "vid_key": f"msr{n}",
            **{f"a{k}": next(texts) for k in range(1, 6)},
            "answer": str(n % 5),
        }
        for n in range(20)
    ]
    assert check_choice(write_rows(tmp_path / "qa.csv", rows, "\t"), tmp_path) == pytest.approx(
        13 / 20
    )


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


def test_moments(tmp_path: Path) -> None:
    path = tmp_path / "didemo.json"
    path.write_text(json.dumps(didemo_queries(60)))
    numbers = check_moments(path, tmp_path)
    assert 0 < numbers["rank1"] < numbers["rank5"] < 1
    assert numbers["real-rank1"] > numbers["chance-real-rank1"]


def test_videos_without_features_are_named_and_scored_around(tmp_path: Path) -> None:
    path = msrvtt_file(tmp_path, 12)
    overrides = make_oracle(tmp_path, sentences(12))
    text_nD = sentence_vectors(tmp_path / "bert", sentences(12))
    write_videos(
        tmp_path / "features", {f"video{n}": text_nD[n] for n in range(12) if n not in (3, 7)}
    )
    with pytest.raises(
        DataError, match=r"2 of 12 test items have no features \(2 videos: video3, video7\)"
    ):
        run("test_vtt_zs", path, tmp_path / "features", overrides)
    scores = run("test_vtt_zs", path, tmp_path / "features", overrides, allow_missing=True)
    assert scores.rows[0]["metrics"]["RetrievalMetric"]["R1"] == 1
    assert (scores.rows[0]["num_items"], scores.rows[0]["num_missing"]) == (10, 2)
