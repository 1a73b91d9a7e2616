"""A folder with a caption file for each video, which `mmpt dedup` converts to one file."""

import json

import pytest

from mmpt.cli.dedup import main
from mmpt.errors import DataError
from mmpt.prepare.captions.caption_folder import find_caption_files
from mmpt.prepare.captions.corpus import find_corpus, iter_corpus

VTT = "WEBVTT\n\n00:01.000 --> 00:02.500\nstir <b>it</b>\n"
SRT = "1\n00:00:00,000 --> 00:00:01,000\ncut it\n"


@pytest.fixture
def folder(tmp_path):
    """Returns a folder as WhisperX writes it, with two additional types of files."""
    folder = tmp_path / "whisper.x"
    (folder / "more").mkdir(parents=True)
    segments = [
        {"start": 0.5, "end": 2.0, "text": " heat the pan", "words": []},
        {"start": 2.0, "end": 3.0, "text": " "},
    ]
    whisperx = {"segments": segments, "word_segments": [], "language": "en"}
    (folder / "-a_1.json").write_text(json.dumps(whisperx))
    (folder / "b.c.en.vtt").write_text(VTT)
    (folder / "more/d.mp4.srt").write_text(SRT)
    (folder / "notes.txt").write_text("no captions")
    return folder


def test_a_folder_is_converted_to_a_corpus(folder, tmp_path):
    assert main(["--input", str(folder)]) == 0
    assert dict(iter_corpus(tmp_path / "whisper.x.jsonl")) == {
        "-a_1": {"start": [0.5], "end": [2.0], "text": ["heat the pan"]},
        "b.c": {"start": [1.0], "end": [2.5], "text": ["stir it"]},
        "d": {"start": [0.0], "end": [1.0], "text": ["cut it"]},
    }


def test_a_folder_is_read_again_only_if_a_file_has_changed(folder, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = ["--input", str(folder), "--output", str(output)]
    assert main(arguments) == 0
    inode = output.stat().st_ino
    assert main(arguments) == 0
    assert output.stat().st_ino == inode
    (folder / "b.c.en.vtt").write_text(VTT.replace("stir", "taste"))
    assert main(arguments) == 0
    assert dict(iter_corpus(output))["b.c"]["text"] == ["taste it"]


def test_mistakes_give_one_message(folder, tmp_path, capsys):
    arguments = ["--input", str(folder), "--output"]
    assert main([*arguments, str(folder / "out.jsonl")]) == 2
    assert "the output must be outside of" in capsys.readouterr().err
    (folder / "b.c.de.vtt").write_text(VTT)
    assert main([*arguments, str(tmp_path / "out.jsonl")]) == 2
    assert "a video must have one caption file, but b.c has" in capsys.readouterr().err
    (folder / "b.c.de.vtt").unlink()
    (folder / "bad.json").write_text("[")
    assert main([*arguments, str(tmp_path / "out.jsonl")]) == 2
    assert "bad.json: not valid JSON" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"must contain caption files \(.vtt, .srt"):
        find_caption_files(empty)


def test_the_error_for_a_folder_instead_of_a_file_names_the_command(folder):
    with pytest.raises(DataError, match=r"is a folder. .*`mmpt dedup --input"):
        find_corpus(folder)
    with pytest.raises(DataError, match=r"file, but this has no suffix\."):
        find_corpus(folder / "nothing")
