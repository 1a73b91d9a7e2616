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
from tests.support.shard_edits import (
    Rows,
    collapsed,
    each,
    every_other,
    first_rows,
    full_captions,
    milliseconds,
    minutes,
    narrow,
    no_pieces,
    of_first_video,
    of_next_video,
    one_in,
    open_end,
    pieces,
    repeated,
    same_piece,
    scaled,
    shares,
    shifted,
    swapped,
    transposed_wrongly,
    unit,
    without_length,
)

FEATURES, TIMES = "feat/{}", "feat/demo.bert-demo.{}.startends"
PIECES = "feat/demo.bert-demo.{}.caps_ids"
UNK = 100  # [UNK] in the vocabularies of the demo and of BERT
SHARDS = ("train_0", "train_1", "val_0")
LONG_TEXTS = (
    "long sentences or paragraphs: cut them; or texts are probably in another language"
)


def report_of(folder: Path) -> DatasetReport:
    return check_dataset(load_config(NORTON, corpus_overrides(folder, folder / "run")))


def figures_of(folder: Path) -> set[str]:
    """Returns the titles of the implausible statistics."""
    return {finding.figure for finding in report_of(folder).findings()}


def change(folder: Path, stem: str, edit: Callable[[Rows], Rows]) -> None:
    """Replaces the rows of every shard by the result of `edit`."""
    for shard in SHARDS:
        path = folder / stem.format(shard)
        tensor = ShardedTensor.load(path)
        rows = [np.array(tensor[row]) for row in range(len(tensor))]
        edited = edit(rows)
        ShardedTensor.from_list(edited).save(path)


def test_every_plausible_range_is_within_the_range_of_errors():
    figures = SplitStatistics().rows()
    for one in RANGES:
        assert one.figure in figures
        assert one.error_low <= one.low < one.high <= one.error_high


# ---- plausible data


def test_the_demo_is_plausible(corpus):
    assert report_of(corpus).findings() == []


@pytest.mark.parametrize(
    ("every_s", "length_s", "words"),
    # Automatic, de-duplicated, sentences.
    [(2.1, 4.0, 4), (3.5, 3.6, 4), (7.0, 5.5, 13)],
)
def test_howto100m_is_plausible(copy, every_s, length_s, words):
    rng = np.random.default_rng(1)
    vocabulary = (copy / "bert/vocab.txt").read_text().split()
    whole_words = []
    for number, word in enumerate(vocabulary):
        if word.isalpha() and len(word) > 1:
            whole_words.append(number)

    def videos(ids):
        for video_id in ids:
            seconds = int(np.clip(rng.lognormal(5.8, 0.6), 40, 2000))
            first_s = rng.uniform(0, 15)
            last_s = seconds * rng.uniform(0.85, 1)
            start = np.arange(first_s, last_s, every_s)
            end = start + rng.uniform(0.6, 1.4, len(start)) * length_s
            pieces = []
            for _ in start:
                num_words = rng.integers(1, 2 * words)
                pieces.append(rng.choice(whole_words, num_words).tolist())
            captions = {"start": start.tolist(), "end": end.tolist(), "cap": pieces}
            features = rng.normal(0.3, 1, (seconds, 512))
            yield video_id, unit(features), captions

    tfeat_dir = f"{copy}/feat/demo.bert-demo."
    for split, count in ((Split.TRAIN, 10), (Split.VALID, 4)):
        name = split.shard_name
        ids = [f"{name}{number}" for number in range(count)]
        write_shards(copy / "feat", tfeat_dir, split, videos(ids))
        list_path = copy / f"how2_s3d_{name}.lst"
        list_path.write_text("\n".join(ids))
    assert describe(report_of(copy).findings()) == []


# ---- implausible data


@pytest.mark.parametrize(
    ("stem", "edit", "severity", "figure", "cause"),
    [
        # Caption times in another unit, or shifted.
        (TIMES, each(milliseconds), "error", "outside the video", "milliseconds"),
        (TIMES, scaled(1e6), "error", "outside the video", "microseconds"),
        (TIMES, scaled(30), "error", "first to last", "30 times too large, probably f"),
        (TIMES, scaled(100), "error", "outside the video", "100 times too large"),
        (TIMES, each(minutes), "error", "seconds of a caption", "probably minutes"),
        (TIMES, shifted(3600), "error", "outside the video", "time code"),
        (TIMES, each(swapped), "error", "end before they start", "swapped"),
        (TIMES, each(without_length), "error", "time with captions", "missing"),
        (TIMES, scaled(1.1), "warning", "outside the video", "at another speed"),
        (TIMES, shifted(-20), "warning", "outside the video", "shifted"),
        # Wrong caption times in some videos.
        (
            TIMES,
            one_in(2, milliseconds),
            "warning",
            "outside",
            "in 50 % of the videos, cap",
        ),
        (
            TIMES,
            one_in(8, milliseconds),
            "warning",
            "shorter than",
            "in 9 % of the videos",
        ),
        (TIMES, each(open_end), "warning", "shorter than their captions", "99:59:59"),
        (TIMES, one_in(8, minutes), "warning", "first tenth", "probably minutes"),
        (TIMES, one_in(3, shares), "warning", "first tenth", "shares of the video"),
        (TIMES, one_in(2, without_length), "warning", "without length", "missing"),
        # Features with another rate, or of other videos.
        (
            FEATURES,
            each(every_other),
            "warning",
            "first to last",
            "probably 2.0 times as far apart",
        ),
        (FEATURES, repeated(2, seed=0), "warning", "first to", "2.0 times as many"),
        (
            FEATURES,
            repeated(25, seed=0),
            "warning",
            "first to",
            "more feature rows per second",
        ),
        (FEATURES, repeated(2), "warning", "one before", "repeated"),
        (
            FEATURES,
            one_in(2, lambda rows: rows[:30]),
            "warning",
            "outside the video",
            "cut off",
        ),
        (FEATURES, first_rows(0.94), "warning", "outside", "were cut off"),
        (FEATURES, of_next_video, "warning", "outside", "compare the ids"),
        (FEATURES, of_first_video, "warning", "of another", "several videos"),
        # Wrong features.
        (
            FEATURES,
            scaled(1 / 16),
            "warning",
            "norm of a feature row",
            "scaled twice",
        ),
        (
            FEATURES,
            each(transposed_wrongly),
            "warning",
            "norm is not 1",
            "not transposed",
        ),
        (FEATURES, each(np.zeros_like), "error", "of zeros", "could not be decoded"),
        (
            FEATURES,
            each(collapsed),
            "warning",
            "norm of the mean feature row",
            "nearly the same",
        ),
        (
            FEATURES,
            each(np.ones_like),
            "error",
            "constant feature columns",
            "wrong weights",
        ),
        (FEATURES, each(narrow), "warning", "columns", "narrower"),
        (FEATURES, scaled(np.float16(np.inf)), "error", "infinite", "65,504"),
        # Wrong texts.
        (PIECES, each(no_pieces), "error", "without a word", "not strings"),
        (PIECES, each(same_piece), "error", "equal to another", "one text"),
        (PIECES, pieces(0.9, [UNK]), "error", "unknown", "another language"),
        (PIECES, pieces(0.2, [UNK]), "warning", "unknown", "another language"),
        (PIECES, each(full_captions), "warning", "of a caption", LONG_TEXTS),
    ],
)
def test_a_mistake_is_found_with_its_cause(copy, stem, edit, severity, figure, cause):
    with np.errstate(invalid="ignore"):
        change(copy, stem, edit)
    found = [
        finding for finding in report_of(copy).findings() if finding.split == "train"
    ]
    causes = [finding.cause for finding in found if figure in finding.figure]
    assert any(cause in one for one in causes), found
    has_errors = "error" in {finding.severity for finding in found}
    assert has_errors == (severity == "error"), found


def test_the_share_of_videos_with_wrong_times_is_reported(copy):
    def wrong_after_five(rows: Rows) -> Rows:
        return [*rows[:5], *map(milliseconds, rows[5:])]

    change(copy, TIMES, wrong_after_five)
    found = [
        finding for finding in report_of(copy).findings() if finding.split == "train"
    ]
    causes = {finding.figure: finding.cause for finding in found}
    cause = causes["first to last caption, of the video"]
    assert cause.startswith("in 69 % of the videos, caption times are about 1,0")
    assert "error" in {finding.severity for finding in found}


def test_a_single_wrong_end_is_a_warning(copy):
    change(copy, TIMES, one_in(20, open_end))
    assert run(copy) == 0
    (found,) = report_of(copy).findings()
    assert found.figure == "videos: shorter than their captions"
    assert found.value == "1 (3.1 %)"
    assert "ends of some captions are probably wrong" in found.cause


def test_constant_columns_of_few_rows_are_not_reported(copy):
    # The largest shard has 80.
    change(copy, FEATURES, each(lambda rows: np.ones_like(rows[:4])))
    figures = figures_of(copy)
    assert "constant feature columns" not in figures
    assert "norm of the mean feature row" not in figures


def test_equal_captions_of_all_videos_are_found(copy):
    for stem in (TIMES, PIECES):
        change(copy, stem, of_first_video)
    assert "videos: with captions of another" in figures_of(copy)


def test_captions_in_another_language_are_found_by_their_word_pieces(copy):
    words = (copy / "bert/vocab.txt").read_text().split()
    inside_words = [
        number for number, word in enumerate(words) if word.startswith("##")
    ]
    change(copy, PIECES, pieces(0.5, inside_words))
    (found, _) = report_of(copy).findings()
    assert found.figure == "tokens: inside a word"
    assert "another language" in found.cause


def run(folder: Path) -> int:
    overrides = corpus_overrides(folder, folder / "run")
    return command.main([NORTON, *overrides, "--out", str(folder / "check")])


def results(folder: Path) -> dict:
    path = folder / "check/statistics.json"
    return json.loads(path.read_text())


def test_warnings_give_exit_code_0(copy, caplog):
    change(copy, FEATURES, scaled(20))
    assert run(copy) == 0
    assert "rows were probably not divided by their L2 norm" in caplog.text
    assert "norm of a feature row: 20.000 (19.99" in caplog.text
    assert "(plausible: 0.98 to 1.02)" in caplog.text
    findings = results(copy)["findings"]
    assert {finding["severity"] for finding in findings} == {"warning"}
    assert {finding["split"] for finding in findings} == {"train", "val"}


def test_errors_are_reported_together_with_the_damage(copy, capsys):
    def nan_and_zeros(rows: Rows) -> Rows:
        damaged = rows[0] * np.float16(np.nan)
        return [damaged, *map(np.zeros_like, rows[1:])]

    change(copy, TIMES, each(milliseconds))
    change(copy, FEATURES, nan_and_zeros)
    assert run(copy) == 2
    captured = capsys.readouterr()
    assert "damaged:" in captured.err
    assert "feature rows with NaN or infinity" in captured.err
    assert "training would be useless:" in captured.err
    assert "milliseconds: divide them by 1000\n    train: " in captured.err
    assert "could not be decoded\n    train: " in captured.err
    (line,) = [
        line for line in captured.out.splitlines() if "outside the video" in line
    ]
    assert line.endswith("at most 2 %")
