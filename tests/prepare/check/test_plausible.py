"""Tests of the plausible ranges: common mistakes are found with their cause.

HowTo100M and the demo give no findings.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli import check as command
from mmpt.config import load_config
from mmpt.prepare.check.dataset_check import DatasetReport, check_dataset
from mmpt.prepare.check.plausible import RANGES, describe
from mmpt.prepare.check.statistics import SplitStatistics
from mmpt.shards.shardedtensor import ShardedTensor
from mmpt.shards.writer import write_shards
from tests.support.jobs import NORTON, corpus_overrides

Rows = list[np.ndarray]
FEATURES, TIMES = "feat/{}", "feat/demo.bert-demo.{}.startends"
PIECES = "feat/demo.bert-demo.{}.caps_ids"
UNK = 100  # [UNK] of the demo's vocabulary, as of BERT's
SHARDS = ("train_0", "train_1", "val_0")
RNG = np.random.default_rng(0)


def report_of(folder: Path) -> DatasetReport:
    return check_dataset(load_config(NORTON, corpus_overrides(folder, folder / "run")))


def change(folder: Path, stem: str, edit: Callable[[Rows], Rows]) -> None:
    """Replaces the rows of every shard by the result of `edit`."""
    for shard in SHARDS:
        path = folder / stem.format(shard)
        tensor = ShardedTensor.load(path)
        rows = [np.array(tensor[row]) for row in range(len(tensor))]
        ShardedTensor.from_list(edit(rows)).save(path)


def each(edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Rows], Rows]:
    return lambda rows: [edit(row) for row in rows]


def one_in(count: int, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Rows], Rows]:
    return lambda rows: [
        row if (place + 1) % count else edit(row) for place, row in enumerate(rows)
    ]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)).astype(np.float16)


def noisy(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[:, 0] += RNG.normal(0, 0.01, len(rows))
    return rows


def open_end(times: np.ndarray) -> np.ndarray:
    times = times.copy()
    times[-1, 1] = 359_999.999  # 99:59:59,999
    return times


def collapsed(rows: np.ndarray) -> np.ndarray:
    return unit(unit(np.ones((1, 512))) + RNG.normal(0, 0.002, rows.shape))


def pieces(share: float, ids: list[int]) -> Callable[[Rows], Rows]:
    """Returns an edit that replaces a share of the word pieces by random ones of `ids`."""

    def edit(rows: np.ndarray) -> np.ndarray:
        hit = (rows >= 0) & (RNG.random(rows.shape) < share)
        return np.where(hit, RNG.choice(ids, rows.shape), rows).astype(np.int32)

    return each(edit)


def test_every_range_belongs_to_a_statistic_and_is_within_its_error_range():
    figures = SplitStatistics().rows()
    for one in RANGES:
        assert one.figure in figures
        assert one.error_low <= one.low < one.high <= one.error_high


# ---- plausible data


def test_the_demo_is_plausible(corpus):
    assert report_of(corpus).findings() == []


@pytest.mark.parametrize(
    ("every_s", "length_s", "words"),
    [(2.1, 4.0, 4), (3.5, 3.6, 4), (7.0, 5.5, 13)],  # automatic, de-duplicated, sentences
)
def test_howto100m_is_plausible(copy, every_s, length_s, words):
    rng = np.random.default_rng(1)
    vocabulary = (copy / "bert/vocab.txt").read_text().split()
    whole = [number for number, word in enumerate(vocabulary) if word.isalpha() and len(word) > 1]

    def videos(split, count):
        for number in range(count):
            seconds = int(np.clip(rng.lognormal(5.8, 0.6), 40, 2000))
            start = np.arange(rng.uniform(0, 15), seconds * rng.uniform(0.85, 1), every_s)
            end = start + rng.uniform(0.6, 1.4, len(start)) * length_s
            ids = [rng.choice(whole, rng.integers(1, 2 * words)).tolist() for _ in start]
            captions = {"start": start.tolist(), "end": end.tolist(), "cap": ids}
            yield f"{split}{number}", unit(rng.normal(0.3, 1, (seconds, 512))), captions

    for split, count in ((Split.TRAIN, 10), (Split.VALID, 4)):
        name = split.shard_name
        write_shards(copy / "feat", f"{copy}/feat/demo.bert-demo.", split, videos(name, count))
        names = "".join(f"{name}{number}\n" for number in range(count))
        (copy / f"how2_s3d_{name}.lst").write_text(names)
    assert describe(report_of(copy).findings()) == []


# ---- implausible data


@pytest.mark.parametrize(
    ("stem", "edit", "severity", "figure", "cause"),
    [
        # Caption times in another unit, or shifted.
        (TIMES, each(lambda t: t * 1000), "error", "outside the video", "milliseconds"),
        (TIMES, each(lambda t: t * 1e6), "error", "outside the video", "microseconds"),
        (TIMES, each(lambda t: t * 30), "error", "first to last", "30 times too large, probably f"),
        (TIMES, each(lambda t: t * 100), "error", "outside the video", "100 times too large"),
        (TIMES, each(lambda t: t / 60), "error", "seconds of a caption", "probably minutes"),
        (TIMES, each(lambda t: t + 3600), "error", "outside the video", "time code"),
        (TIMES, each(lambda t: t[:, ::-1]), "error", "end before they start", "swapped"),
        (TIMES, each(lambda t: t[:, :1].repeat(2, 1)), "error", "time with captions", "missing"),
        (TIMES, each(lambda t: t * 1.1), "warning", "outside the video", "at another speed"),
        (TIMES, each(lambda t: t - 20), "warning", "outside the video", "shifted"),
        # Wrong caption times in some videos.
        (
            *(TIMES, lambda rows: [*rows[:5], *(t * 1000 for t in rows[5:])]),
            *("error", "first to last", "in 69 % of the videos, caption times are about 1,0"),
        ),
        (TIMES, one_in(2, lambda t: t * 1000), "warning", "outside", "in 50 % of the videos, cap"),
        (TIMES, one_in(8, lambda t: t * 1000), "warning", "shorter than", "in 9 % of the videos"),
        (TIMES, each(open_end), "warning", "shorter than their captions", "99:59:59"),
        (TIMES, one_in(8, lambda t: t / 60), "warning", "first tenth", "probably minutes"),
        (TIMES, one_in(3, lambda t: t / t.max()), "warning", "first tenth", "shares of the video"),
        (TIMES, one_in(2, lambda t: t[:, :1].repeat(2, 1)), "warning", "without length", "missing"),
        # Features with another rate, or of other videos.
        (FEATURES, each(lambda x: x[::2]), "warning", "first to last", "probably 2.0 s apart"),
        (FEATURES, each(lambda x: noisy(x.repeat(2, 0))), "warning", "first to", "2.0 a second"),
        (FEATURES, each(lambda x: noisy(x.repeat(25, 0))), "warning", "first to", "one per frame"),
        (FEATURES, each(lambda x: x.repeat(2, 0)), "warning", "one before", "repeated"),
        (FEATURES, one_in(2, lambda x: x[:30]), "warning", "outside the video", "cut off"),
        (FEATURES, each(lambda x: x[: len(x) * 94 // 100]), "warning", "outside", "were cut off"),
        (FEATURES, lambda rows: [*rows[1:], rows[0]], "warning", "outside", "compare the ids"),
        (FEATURES, lambda rows: [rows[0]] * len(rows), "warning", "of another", "several videos"),
        # Wrong features.
        (FEATURES, each(lambda x: x / 16), "warning", "length of a feature row", "scaled twice"),
        (
            *(FEATURES, each(lambda x: np.ascontiguousarray(x.T).reshape(x.shape))),
            *("warning", "not of length 1", "not transposed"),
        ),
        (FEATURES, each(np.zeros_like), "error", "of zeros", "could not be decoded"),
        (FEATURES, each(collapsed), "warning", "length of the mean feature row", "nearly the same"),
        (FEATURES, each(np.ones_like), "error", "constant feature columns", "wrong weights"),
        (FEATURES, each(lambda x: x * (np.arange(512) < 256)), "warning", "columns", "narrower"),
        (FEATURES, each(lambda x: x * np.float16(np.inf)), "error", "infinite", "65,504"),
        # Wrong texts.
        (PIECES, each(lambda ids: np.full_like(ids, -1)), "error", "without a word", "not strings"),
        (PIECES, each(lambda ids: ids * 0 + 105), "error", "equal to another", "one text"),
        (PIECES, pieces(0.9, [UNK]), "error", "unknown", "another language"),
        (PIECES, pieces(0.2, [UNK]), "warning", "unknown", "another language"),
        (
            *(PIECES, each(lambda ids: np.where(ids < 0, 105, ids)), "warning", "of a caption"),
            "long sentences or paragraphs: cut them; or texts are probably in another language",
        ),
    ],
)
def test_a_mistake_is_found_with_its_cause(copy, stem, edit, severity, figure, cause):
    with np.errstate(invalid="ignore"):
        change(copy, stem, edit)
    found = [one for one in report_of(copy).findings() if one.split == "train"]
    assert any(figure in one.figure and cause in one.cause for one in found), found
    assert ("error" in {one.severity for one in found}) == (severity == "error"), found


def test_a_single_wrong_end_is_a_warning(copy):
    change(copy, TIMES, one_in(20, open_end))
    assert run(copy) == 0
    (found,) = report_of(copy).findings()
    assert found.figure == "videos: shorter than their captions"
    assert found.value == "1 (3.1 %)"
    assert "ends of some captions are probably wrong" in found.cause


def test_constant_columns_of_few_rows_are_not_reported(copy):
    change(copy, FEATURES, each(lambda rows: np.ones_like(rows[:4])))  # 80 in the largest shard
    figures = {one.figure for one in report_of(copy).findings()}
    assert not figures & {"constant feature columns", "length of the mean feature row"}


def test_equal_captions_of_all_videos_are_found(copy):
    for stem in (TIMES, PIECES):
        change(copy, stem, lambda rows: [rows[0]] * len(rows))
    assert "videos: with captions of another" in {one.figure for one in report_of(copy).findings()}


def test_captions_in_another_language_are_found_by_their_word_pieces(copy):
    words = (copy / "bert/vocab.txt").read_text().split()
    change(copy, PIECES, pieces(0.5, [n for n, word in enumerate(words) if word.startswith("##")]))
    (found, _) = report_of(copy).findings()
    assert found.figure == "tokens: inside a word"
    assert "another language" in found.cause


def run(folder: Path) -> int:
    overrides = corpus_overrides(folder, folder / "run")
    return command.main([NORTON, *overrides, "--out", str(folder / "check")])


def results(folder: Path) -> dict:
    return json.loads((folder / "check/statistics.json").read_text())


def test_warnings_give_exit_code_0(copy, caplog):
    change(copy, FEATURES, each(lambda rows: rows * 20))
    assert run(copy) == 0
    assert "features were probably not computed by S3D" in caplog.text
    assert "length of a feature row: 20.000 (19.99" in caplog.text
    assert "(plausible: 0.98 to 1.02)" in caplog.text
    found = results(copy)["findings"]
    assert {one["severity"] for one in found} == {"warning"}
    assert {one["split"] for one in found} == {"train", "val"}


def test_errors_are_reported_together_with_the_damage(copy, capsys):
    change(copy, TIMES, each(lambda times: times * 1000))
    change(
        copy, FEATURES, lambda rows: [rows[0] * np.float16(np.nan), *map(np.zeros_like, rows)][:-1]
    )
    assert run(copy) == 2
    captured = capsys.readouterr()
    for part in (
        *("damaged:", "seconds with NaN or infinity", "training would be senseless:"),
        *("milliseconds: divide them by 1000\n    train: ", "could not be decoded\n    train: "),
    ):
        assert part in captured.err
    (line,) = [line for line in captured.out.splitlines() if "outside the video" in line]
    assert line.endswith("at most 2 %")
