import json
import math
import random
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.batch import Captions, ShardKey, Split
from mmpt.errors import ConfigError, DataError
from mmpt.processors import (
    FixedLenAligner,
    OverlappedAligner,
    StartClipAligner,
    VariedLenAligner,
)
from tests.support.paths import GOLDEN
from tests.support.shard_data import make_video
from tests.support.tiny_bert import tiny_bert

SIZES = [2 + (5 * i) % 7 for i in range(12)]
CAPTIONS = Captions(
    start=(3 * np.arange(12) + 0.25).tolist(),
    end=(3 * np.arange(12) + 2.75).tolist(),
    cap=[list(range(1000 + 100 * i, 1000 + 100 * i + SIZES[i])) for i in range(12)],
)
VIDEO = np.random.default_rng(0).standard_normal((37, 8)).astype(np.float16)

# Recorded spans (text_start, video_start, text_end, video_end), text lengths, video lengths, and
# the next draw.
RECORDED = {
    OverlappedAligner: (
        [(1, 9, 5, 17), (4, 12, 6, 23), (6, 15, 10, 25), (6, 21, 12, 37)],
        [26, 17, 21, 32],
        [8, 11, 10, 16],
        0.06876294940686056,
    ),
    VariedLenAligner: (
        [(3, 9, 7, 21), (4, 12, 6, 18), (6, 18, 12, 36), (7, 21, 10, 30)],
        [24, 17, 32, 17],
        [12, 6, 16, 9],
        0.8161263591200314,
    ),
    StartClipAligner: ([(0, 0, 6, 18)] * 4, [32] * 4, [16] * 4, 0.08185501079576984),
    FixedLenAligner: (
        [(0, 0, 6, 18), (1, 3, 8, 24), (2, 6, 9, 27), (4, 12, 10, 30)],
        [32] * 4,
        [16] * 4,
        0.5251965038114514,
    ),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """F = 16, T = 32 and C = 4, and a vocabulary that contains the ids above."""
    folder = Path(tiny_bert(tmp_path_factory.mktemp("bert")))
    words = (GOLDEN / "vocab.txt").read_text().splitlines()
    words += [f"word{number}" for number in range(len(words), 2200)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    bert = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(bert | {"vocab_size": 2200}))
    return OverlappedAligner.Config(
        bert_name=str(folder),
        max_video_len=16,
        max_len=48,
        clip_per_video=4,
        sampled_min_len=8,
        sampled_max_len=32,
        sampled_video_min_len=3,
        sampled_video_max_len=16,
    )


SPAN = ("text_start", "video_start", "text_end", "video_end")


def spans_of(batch):
    columns = [batch[field].tolist() for field in SPAN]
    return list(zip(*columns, strict=True))


def first_slots(length):
    """Returns the mask of F slots, of which the first `length` are real."""
    return [slot < length for slot in range(16)]


def naive_text(ids, num_slots):
    """Returns the token ids and the mask of a text, built from lists."""
    tokens = [101, 102, *ids[: num_slots - 3], 102]
    num_tokens = len(tokens)
    padding = num_slots - num_tokens
    caps = tokens + [0] * padding
    cmasks = [True] * num_tokens + [False] * padding
    return caps, cmasks


@pytest.mark.parametrize("cls", RECORDED)
def test_draws_equal_the_recorded_ones(cls, config):
    rng = random.Random(7)
    aligner = cls(config, Split.TRAIN)
    batch = aligner("video", VIDEO, CAPTIONS, rng)
    spans, text_lens, video_lens, next_draw = RECORDED[cls]
    assert spans_of(batch) == spans
    assert batch["cmasks"].sum(1).tolist() == text_lens
    assert batch["vmasks"].sum(1).tolist() == video_lens
    assert rng.random() == next_draw


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("cls", RECORDED)
def test_tensors_are_the_rows_and_ids_of_the_spans(cls, seed, config):
    _, video, captions = make_video(seed)
    aligner = cls(config, Split.TRAIN)
    batch = aligner("video", video, captions, random.Random(seed))
    spans = spans_of(batch)
    assert spans == sorted(spans)
    for clip, (text_start, video_start, text_end, video_end) in enumerate(spans):
        ids = list(chain.from_iterable(captions["cap"][text_start:text_end]))
        caps, cmasks = naive_text(ids, 32)
        assert batch["caps"][clip].tolist() == caps
        assert batch["cmasks"][clip].tolist() == cmasks
        assert sum(cmasks) == min(len(ids), 29) + 3
        assert 0 <= video_start <= video_end <= len(video)
        rows = video[video_start:video_end][:16]
        num_rows = len(rows)
        vfeats = batch["vfeats"][clip].numpy()
        np.testing.assert_array_equal(vfeats[:num_rows], rows)
        assert not vfeats[num_rows:].any()
        assert batch["vmasks"][clip].tolist() == first_slots(num_rows)
        if cls is not OverlappedAligner:
            text_end_s = captions["end"][text_end - 1]
            assert video_end == min(math.ceil(text_end_s), len(video))


def test_captions_without_ids(config):
    aligner = FixedLenAligner(config, Split.TRAIN)
    captions = Captions(start=[1.0], end=[2.0], cap=[[]])
    batch = aligner("video", VIDEO, captions, random.Random(0))
    caps, _ = naive_text([], 32)
    assert batch["caps"][0].tolist() == caps


def test_chosen_captions_are_joined(config):
    aligner = FixedLenAligner(config, Split.TRAIN)
    caps, cmasks = aligner.build_text_seq(CAPTIONS, [3, 1])
    ids = CAPTIONS["cap"][3] + CAPTIONS["cap"][1]
    assert (caps.tolist(), cmasks.tolist()) == naive_text(ids, 32)


def test_chosen_seconds_are_joined(config):
    aligner = FixedLenAligner(config, Split.TRAIN)
    vfeats, vmasks = aligner.build_video_seq(VIDEO, [(2, 5), (30, 90), (4, 4), (0, 30)])
    rows = np.concatenate([VIDEO[2:5], VIDEO[30:37], VIDEO[0:6]])
    np.testing.assert_array_equal(vfeats.numpy(), rows)
    assert vmasks.all()


def test_a_short_video_is_padded(config):
    aligner = FixedLenAligner(config, Split.TRAIN)
    vfeats, vmasks = aligner.build_video_seq(VIDEO[:3])
    np.testing.assert_array_equal(vfeats[:3].numpy(), VIDEO[:3])
    assert not vfeats[3:].any()
    assert vmasks.tolist() == first_slots(3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cls", [VariedLenAligner, OverlappedAligner])
def test_impossible_times_are_clamped(cls, seed, config):
    captions = Captions(
        start=[30.0, 90.0, -5.0], end=[20.0, 95.0, -1.0], cap=[[1], [2], [3]]
    )
    aligner = cls(config, Split.TRAIN)
    batch = aligner("odd", VIDEO, captions, random.Random(seed))
    start = batch["video_start"]
    end = batch["video_end"]
    assert (start >= 0).all()
    assert (start <= end).all()
    assert (end <= 37).all()


def broken(row, value):
    video = VIDEO.copy()
    video[row, 3] = value
    return video


ONE = Captions(start=[0.0], end=[1.0], cap=[[30522]])
NONE = Captions(start=[], end=[], cap=[])


@pytest.mark.parametrize(
    ("video", "captions", "message"),
    [
        (
            broken(slice(None), np.nan),
            CAPTIONS,
            "features must be finite, .* NaN or infinite",
        ),
        (broken(slice(None), -np.inf), CAPTIONS, "features must be finite"),
        (
            broken(slice(None), np.inf).astype(np.float32),
            CAPTIONS,
            "features must be finite",
        ),
        (VIDEO.tolist(), CAPTIONS, "features must be a float array .* but are list"),
        (VIDEO.astype(np.int32), CAPTIONS, r"but are int32 of shape \[37, 8\]"),
        (VIDEO[:0], CAPTIONS, "has no feature rows"),
        (VIDEO, NONE, "has no captions"),
        (VIDEO, ONE, "word-piece ids must be below 2200.*30522"),
    ],
)
def test_invalid_items_are_reported(video, captions, message, config):
    aligner = OverlappedAligner(config, Split.TRAIN)
    with pytest.raises(DataError, match=f"video odd: .*{message}"):
        aligner("odd", video, captions, random.Random(0))


def test_a_packed_video_is_reported_with_its_place(config):
    aligner = OverlappedAligner(config, Split.TRAIN)
    with pytest.raises(
        DataError, match=r"video odd \(row 3 of shard 1\): features must be finite"
    ):
        aligner(
            ShardKey("odd", 0, 1, 3),
            broken(slice(None), np.nan),
            CAPTIONS,
            random.Random(0),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"clip_per_video": None},
            "`dataset.subsampling` must be at least 1 .* is not set",
        ),
        (
            {"sampled_max_len": 7},
            "`dataset.sampled_max_len` must be at least 8 .* is 7",
        ),
        ({"max_len": 19}, "`dataset.max_len` must be at least 20 .* is 19"),
        ({"bert_name": None}, "`dataset.bert_name` must be set"),
    ],
)
def test_invalid_settings_are_refused(changes, message, config):
    with pytest.raises(ConfigError, match=message):
        OverlappedAligner(config.replace(**changes), Split.TRAIN)


@pytest.mark.parametrize("cls", [VariedLenAligner, FixedLenAligner, StartClipAligner])
@pytest.mark.parametrize("fps", [0.5, 1.6, 2])
def test_clips_of_another_rate_cover_the_same_time(cls, fps, config):
    video = np.repeat(VIDEO, 2, axis=0)
    at_rate = cls(config.replace(feature_fps=fps), Split.TRAIN)
    plain = cls(config, Split.TRAIN)
    batch = at_rate("video", video, CAPTIONS, random.Random(3))
    expected = plain("video", VIDEO, CAPTIONS, random.Random(3))
    assert batch["vfeats"].shape[1] == math.ceil(16 * fps)
    assert torch.equal(batch["caps"], expected["caps"])
    for first, start, last, end in spans_of(batch):
        assert start == math.floor(CAPTIONS["start"][first] * fps)
        assert end == min(math.ceil(CAPTIONS["end"][last - 1] * fps), len(video))


def test_lengths_of_video_windows_are_seconds_at_every_rate(config):
    aligner = OverlappedAligner(config.replace(feature_fps=4), Split.TRAIN)
    video = np.repeat(VIDEO, 4, axis=0)
    lengths = []
    for seed in range(40):
        batch = aligner("video", video, CAPTIONS, random.Random(seed))
        lengths += batch["vmasks"].sum(1).tolist()
    assert min(lengths) >= 3 * 4
    assert max(lengths) == 16 * 4
    assert len({length % 4 for length in lengths}) == 4
