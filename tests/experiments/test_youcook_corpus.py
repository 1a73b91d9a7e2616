"""A corpus of written sentences: times, words, features, and mistakes in the file."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.corpora import HALF_ALIGNED
from experiments.youcook_corpus import (
    main,
    read_corpus,
    read_segments,
    sentence_world,
    words_of,
)
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.processors.tokenizer import load_tokenizer

ROWS = (
    ("30", "20", "add lemon juice and salt", "b"),
    ("12", "4", "chop the lettuce", "b"),
    ("25", "10", "toss the salad", "b"),  # overlaps both others
    ("9", "2", "boil some water", "a"),
    ("40", "31", "drain the noodles", "a"),
    ("50", "41", "serve", "c"),
    ("60", "55", "...", "c"),  # no words
)


def write_csv(path: Path, rows=ROWS, header="end,start,text,video_id") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def test_segments_are_sorted_by_time_and_do_not_overlap(tmp_path: Path) -> None:
    segments = read_segments(write_csv(tmp_path / "a.csv"))
    times = [(segment.start, segment.end, segment.text) for segment in segments["b"]]
    assert times == [
        (4, 12, "chop the lettuce"),
        (12, 25, "toss the salad"),
        (25, 30, "add lemon juice and salt"),
    ]
    assert [segment.text for segment in segments["c"]] == ["serve"]


def test_sentences_that_share_rare_words_look_similar() -> None:
    texts = [
        "boil the noodles",
        "drain the noodles",
        "chop the lettuce",
        "peel the onion",
    ]
    world = sentence_world(CorpusSettings(), texts)
    looks = np.stack([world.prototype(number, "") for number in range(4)])
    cosines = looks @ looks.T
    np.testing.assert_allclose(cosines.diagonal(), 1.0, rtol=1e-12)
    assert cosines[0, 1] > 0.3  # noodles
    assert abs(cosines[0, 2:]).max() < cosines[0, 1]


def test_a_narrator_says_some_words_of_a_sentence_in_order() -> None:
    text = "add lemon juice and salt to the lettuce in the large bowl"
    (step,) = sentence_world(CorpusSettings(), [text]).steps
    spoken = step.fill("Use the {tool} for the {kind} {thing}.", "")
    rest = iter(text.split())
    assert all(word in rest for word in spoken.split())  # a subsequence
    assert 0 < len(spoken.split()) < len(text.split())
    assert step.fill("{do} the {kind} {thing} {how}", "") == text  # as annotated


def test_the_noise_does_not_follow_the_defaults_of_the_demo(tmp_path: Path) -> None:
    world, *_ = read_corpus(write_csv(tmp_path / "a.csv"), num_val=1, seed=3)
    assert world.settings == CorpusSettings(seed=3, **HALF_ALIGNED.options)
    assert world.settings != CorpusSettings(seed=3)


def test_the_corpus_has_the_true_times_and_a_complete_vocabulary(
    tmp_path: Path,
) -> None:
    out = tmp_path / "corpus"
    path = write_csv(tmp_path / "a.csv")
    assert (
        main(["--csv", str(path), "--out", str(out), "--num-val", "1", "--seed", "2"])
        == 0
    )
    train = (out / "how2_s3d_train.lst").read_text().split()
    (val,) = (out / "how2_s3d_val.lst").read_text().split()
    assert sorted([*train, val]) == ["a", "b", "c"]
    (video,) = json.loads((out / "val_clips.json").read_text())["videos"]
    wanted = read_segments(path)[val]
    for clip, segment in zip(video["clips"], wanted, strict=True):
        assert (clip["start"], clip["end"]) == (segment.start, segment.end)
        assert clip["text"] == segment.text
    tokenizer = load_tokenizer(str(out / "bert"))
    words = sorted({word for row in ROWS for word in words_of(row[2])})
    for word in words:
        assert tokenizer.tokenize(word) == [word]


@pytest.mark.parametrize(
    ("options", "header", "message"),
    [
        (
            [],
            "end,start,sentence,video_id",
            "must have the columns video_id, start, end, text",
        ),
        (["--num-val", "3"], "end,start,text,video_id", "must have more than 3 videos"),
    ],
)
def test_mistakes_are_reported(
    options: list[str],
    header: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_csv(tmp_path / "a.csv", header=header)
    assert main(["--csv", str(path), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
