"""Transcripts are read with the caption readers, and aligned with the features of a video."""

from pathlib import Path

import pytest

from mmpt.app.results import format_span
from mmpt.app.transcripts import MAX_SENTENCES, Aligner, read_transcript
from mmpt.app.video_files import VideoFiles
from mmpt.errors import DataError

VIDEO = "pancakes & co"


def test_sentences_after_the_end_of_the_video_are_left_out(transcript: Path) -> None:
    assert read_transcript(transcript, 100).spans == [(0, 4), (7, 11), (19, 23)]
    found = read_transcript(transcript, 9)
    assert found.sentences == ["cut the tomato", "pour the milk"]
    assert found.spans == [(0, 4), (7, 9)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "must be a file of the kinds .vtt, .srt, .json"),
        ("a.json", '{"start": [], "end": [], "text": []}', "but has 0"),
        ("a.json", '{"segments": [{"start": 50, "end": 51, "text": "x"}]}', "has 0"),
        ("a.json", "{", "a.json"),
    ],
)
def test_invalid_transcripts_are_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_transcript(tmp_path / name, 10)


def test_too_many_sentences_are_refused(tmp_path: Path) -> None:
    cue = "00:00:01,000 --> 00:00:02,000\nword {}\n\n"
    cues = map(cue.format, range(MAX_SENTENCES + 1))
    (tmp_path / "a.srt").write_text("".join(cues))
    with pytest.raises(
        DataError, match=f"1 to 200 .* 60 seconds .* has {MAX_SENTENCES + 1}"
    ):
        read_transcript(tmp_path / "a.srt", 60)


def test_an_alignment_has_a_video_a_figure_and_a_row_for_each_sentence(
    small, transcript: Path
) -> None:
    index, files = small
    page = Aligner(index.model, files).align(VIDEO, transcript, monotone=True)
    # The model knows what each second shows, so the spans are the true ones.
    for start, end in ((0, 10), (10, 22), (22, 30)):
        assert f'data-start="{start}" data-end="{end}"' in page
        assert format_span(start, end) in page
    assert 'data-seconds="30"' in page
    assert 'src="videos/pancakes%20%26%20co#t=0"' in page
    assert page.count("<svg") == 1
    assert page.count("<image") >= 2


def test_a_video_without_files_is_reported(small, transcript: Path) -> None:
    index, files = small
    with pytest.raises(DataError, match=r"gone: has no file .* `--videos`"):
        Aligner(index.model, files).align("gone", transcript, monotone=True)


def test_an_index_of_shards_has_no_files(small, transcript: Path) -> None:
    index, _ = small
    aligner = Aligner(index.model, VideoFiles([VIDEO], []))
    with pytest.raises(
        DataError, match=r"`mmpt index --shards` built it\)\. Start `mmpt app` again"
    ):
        aligner.align(VIDEO, transcript, monotone=True)
