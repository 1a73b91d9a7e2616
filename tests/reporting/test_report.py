"""Tests that reports show the known results of sample runs, in one file that loads no others."""

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from mmpt.endtasks.coin.evaluation import SegmentationOutputs
from mmpt.endtasks.coin.report import OTHER_STEP
from mmpt.evaluators import Outputs
from mmpt.reporting import EvaluationRun, prediction_sections, write_report
from mmpt.reporting.retrieval import retrieval_sections
from tests.support.sample_runs import (
    NASTY,
    choices,
    every_kind,
    make_run,
    moments,
    placements,
    retrieval,
    segments,
    write_training,
)
from tests.support.videos import regular_times, write_video

ADDRESSES = ("src", "href", "{http://www.w3.org/1999/xlink}href")


def read(run: EvaluationRun, folder: Path) -> tuple[str, str]:
    """Returns the page and its text. Checks that the page is valid and loads no other files."""
    page = write_report(run, folder / "report.html").read_text()
    root = ElementTree.fromstring(page)  # fails if tags are not closed in order
    for element in root.iter():
        assert element.tag != "script"
        addresses = [element.get(name, "#") for name in ADDRESSES]
        assert all(address.startswith(("data:", "#")) for address in addresses)
    assert page.count("url(") == page.count("url(#")  # clip paths of the same page
    text = " ".join(root.itertext())
    return page, " ".join(text.split())


@pytest.mark.parametrize("kind", list(every_kind()))
def test_every_kind_of_report_is_one_small_valid_file(
    tmp_path: Path, kind: str
) -> None:
    html, words = read(every_kind()[kind], tmp_path)
    assert 3_000 < len(html) < 100_000
    assert "Numbers" in words
    assert "Training" not in words  # the run has no logs


def test_a_retrieval_report_shows_the_failure_of_the_run(tmp_path: Path) -> None:
    html, words = read(retrieval(), tmp_path)
    _, _, failures = words.partition("The queries with the worst rank")
    failures, _, _ = failures.partition("Paragraphs as queries")
    assert failures.count("right clip at rank") == 1
    assert f"“{NASTY}” right clip at rank 12" in failures
    assert "video1, 10 to 18 s" in failures
    assert NASTY not in html  # it occurs only escaped
    # Chance 1/12, and the two checkpoints.
    assert "clip, text to video, R@1 8.3 82.5 91.7" in words


def test_only_the_first_queries_of_a_large_test_set_are_ranked() -> None:
    run = retrieval()
    gallery, failures, *_ = retrieval_sections(run.outputs, run, max_queries=6)
    assert (gallery.data["num_queries"], gallery.data["num_clips"]) == (6, 12)
    (failure,) = failures.data["queries"]
    assert failure["rank"] == 12  # among all clips


def test_a_clip_with_the_same_caption_is_marked(tmp_path: Path) -> None:
    run = retrieval()
    items = [(key, "the same") for key, _ in run.test_items()]
    _, words = read(make_run(run.outputs, items, "RetrievalMetric"), tmp_path)
    assert "(same words)" in words


def test_a_lone_surrogate_in_a_caption_is_replaced(tmp_path: Path) -> None:
    run = retrieval()
    # JSON may contain a lone surrogate.
    items = [(key, "broken \ud83d caption") for key, _ in run.test_items()]
    _, words = read(make_run(run.outputs, items, "RetrievalMetric"), tmp_path)
    assert "broken ? caption" in words


def test_training_curves_are_read_from_the_folder_of_the_checkpoint(
    tmp_path: Path,
) -> None:
    write_training(tmp_path / "runs" / "new")
    _, words = read(retrieval(str(tmp_path / "runs")), tmp_path)
    for name in (
        "clip-caption",
        "video-paragraph",
        "mean cosine of two videos",
        "No training logs in",
    ):
        assert name in words


def test_a_damaged_training_log_does_not_stop_the_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_training(tmp_path / "runs" / "new")
    log = tmp_path / "runs" / "new" / "metrics.jsonl"
    log.write_text("[1]\n" + log.read_text())
    _, words = read(retrieval(str(tmp_path / "runs")), tmp_path)
    assert "clip-caption" not in words
    assert f"{log}, line 1" in caplog.text


def test_key_frames_are_shown_if_videos_are_available(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "video1.mp4", regular_times(40, 2))
    html, _ = read(retrieval(videos=tmp_path / "videos"), tmp_path)
    assert html.count('<img src="data:image/jpeg') > 3


def test_wrong_answers_are_sorted_by_margin(tmp_path: Path) -> None:
    _, words = read(choices(), tmp_path)
    assert re.search(
        r"2 of 4 questions.*video2 wrong by 3\.00.*chosen, score 8\.00.*video3 wrong by 1\.00",
        words,
    )


def test_moments_without_overlap_are_shown(tmp_path: Path) -> None:
    _, words = read(moments(), tmp_path)
    assert "“a dog comes in” chosen moments at rank" in words
    assert "overlap 0 %" in words
    assert "the cat jumps" not in words


def test_the_worst_videos_of_segmentation_and_step_localisation_are_shown(
    tmp_path: Path,
) -> None:
    _, words = read(segments(), tmp_path)
    worse = words.index("halfright: 50.0 % of its seconds are right")
    better = words.index("allright: 100.0 %")
    assert worse < better
    _, words = read(placements(), tmp_path)
    assert "missed (task 113): 0 of 2 steps found" in words
    assert "found (task 113)" not in words


def test_sentences_far_from_their_times_are_shown(tmp_path: Path) -> None:
    _, words = read(every_kind()["alignments"], tmp_path)
    failures = words.partition("lies farthest from their time.")[2]
    assert "“sentence 1” one 15 to 20 s" in failures
    assert "“sentence 2”" not in failures  # it is not shown, so it has no time


def test_published_numbers_are_shown_next_to_the_results(tmp_path: Path) -> None:
    run = retrieval()
    scored = make_run(
        run.outputs, run.test_items(), "RetrievalMetric", task="test_vtt_zs"
    )
    _, words = read(scored, tmp_path)
    assert "VideoCLIP (paper) TempCLR (paper) Norton (paper)" in words
    assert "82.5 91.7 10.4 10.1 10.7" in words
    assert "was scored on 12 items, Norton's are on 1,000" in words


def test_a_report_of_unknown_outputs_has_only_numbers(tmp_path: Path) -> None:
    class Mine(Outputs):
        def arrays(self) -> dict[str, np.ndarray]:
            return {}

    run = dataclasses.replace(retrieval(), outputs=Mine())
    assert prediction_sections(run.outputs, run) == []
    assert "Retrieval gallery" not in read(run, tmp_path)[1]


def test_steps_without_a_colour_of_their_own_share_a_colour(tmp_path: Path) -> None:
    made = segments()
    many = np.arange(1, 41)
    assert isinstance(made.outputs, SegmentationOutputs)
    outputs = dataclasses.replace(
        made.outputs,
        predictions=many,
        targets=np.zeros(40, dtype=int),
        credits=np.zeros(40),
        video_lengths=[40],
        video_ids=["a"],
    )
    page, words = read(dataclasses.replace(made, outputs=outputs), tmp_path)
    assert "24 other steps" in words
    assert page.count(f"fill: {OTHER_STEP}") == 24
