"""Tests of the demo corpus: it is reproducible, and the processors can read it."""

import json
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli.make_demo_data import main
from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.coin.data import read_coin, step_labels
from mmpt.endtasks.how2_clips.data import How2ClipMetaProcessor
from mmpt.endtasks.how2align.data import read_alignment
from mmpt.prepare.demo_corpus import corpus as demo_corpus
from mmpt.prepare.demo_corpus.words import ing_form, make_vocabulary
from mmpt.processors import (
    ShardedHow2MetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
)
from mmpt.processors.tokenizer import load_tokenizer, special_tokens
from tests.support.feature_files import hashes

SMALL = ["--num-videos", "7", "--num-val", "4", "--num-tasks", "3", "--shard-size", "3"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Returns the folder of a small corpus."""
    out = tmp_path_factory.mktemp("demo")
    assert main(["--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture
def config(corpus):
    return DatasetConfig(
        train_path=f"{corpus}/how2_s3d_train.lst",
        val_path=f"{corpus}/how2_s3d_val.lst",
        test_path=f"{corpus}/val_clips.json",
        vfeat_dir=f"{corpus}/feat",
        tfeat_dir=f"{corpus}/feat/demo.bert-demo.",
        bert_name=f"{corpus}/bert",
    )


def read(path: Path):
    return json.loads(path.read_text())


def read_list(path: Path) -> list[str]:
    return path.read_text().split()


def times_of(folder: Path) -> dict[Path, int]:
    """Returns the modification time of every file."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def true_clips(corpus: Path) -> dict[str, list[dict]]:
    """Returns the annotation of every validation video."""
    videos = read(corpus / "val_clips.json")["videos"]
    return {video["id"]: video["clips"] for video in videos}


def letters_of(text: str) -> str:
    """Returns a text without spaces and punctuation, in lower case."""
    return re.sub(r"\W", "", text).lower()


# ---- the command


def test_another_seed_gives_other_videos(corpus, tmp_path):
    assert main(["--out", str(tmp_path), *SMALL, "--seed", "1"]) == 0
    ids = read_list(corpus / "how2_s3d_train.lst")
    others = read_list(tmp_path / "how2_s3d_train.lst")
    assert not set(ids) & set(others)


def test_the_manifest_names_every_file_with_its_hash(corpus):
    found = hashes(corpus)
    del found["demo.json"]
    manifest = read(corpus / "demo.json")
    assert manifest["files"] == found
    assert manifest["settings"]["num_videos"] == 7
    assert manifest["counts"]["train"]["videos"] == 7


def test_a_second_run_does_nothing(corpus, caplog):
    before = times_of(corpus)
    with caplog.at_level("INFO"):
        assert main(["--out", str(corpus), *SMALL]) == 0
    assert "already made" in caplog.text
    assert times_of(corpus) == before


@pytest.mark.parametrize("damage", ["changed", "lost", "manifest"])
def test_a_damaged_corpus_is_made_again_with_the_same_bytes(corpus, tmp_path, damage):
    main(["--out", str(tmp_path), *SMALL])
    if damage == "changed":
        shard = tmp_path / "feat/train_0_data.npy"
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    elif damage == "lost":
        (tmp_path / "bert/vocab.txt").unlink()
    else:
        (tmp_path / "demo.json").write_text("{")
    assert main(["--out", str(tmp_path), *SMALL]) == 0
    assert hashes(tmp_path) == hashes(corpus)


def test_other_settings_replace_the_corpus_and_its_extra_shards(corpus, tmp_path):
    other_settings = ["--num-videos", "9", "--shard-size", "2"]
    assert main(["--out", str(tmp_path), *SMALL, *other_settings]) == 0
    assert (tmp_path / "feat/train_4_data.npy").exists()
    assert main(["--out", str(tmp_path), *SMALL]) == 0
    assert hashes(tmp_path) == hashes(corpus)


def test_all_mistakes_are_reported_and_nothing_is_written(tmp_path, capsys):
    out = tmp_path / "new"
    flags = ["--num-videos", "0", "--misalign", "1.5", "--noise", "nan"]
    assert main(["--out", str(out), *flags]) == 2
    errors = capsys.readouterr().err
    assert "error: `--num-videos` must be from 1 to 1000000, but is 0." in errors
    assert "`--misalign`" in errors
    assert "`--noise`" in errors
    assert not out.exists()


def test_the_error_for_a_folder_that_cannot_be_written_names_it(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "demo"
    assert main(["--out", str(out), *SMALL]) == 2
    assert f"error: {out}/demo.json: cannot be written" in capsys.readouterr().err


def test_an_interrupt_leaves_no_manifest_and_exits_with_code_130(tmp_path, capsys):
    with mock.patch.object(demo_corpus, "make_world", side_effect=KeyboardInterrupt):
        assert main(["--out", str(tmp_path), *SMALL]) == 130
    assert "run it again" in capsys.readouterr().err
    assert not (tmp_path / "demo.json").exists()


# ---- the files


@pytest.mark.parametrize(("split", "count"), [(Split.TRAIN, 7), (Split.VALID, 4)])
def test_lists_shards_and_captions_agree(corpus, config, split, count):
    meta = ShardedHow2MetaProcessor(config, split)
    video = ShardedVideoProcessor(config, split)
    text = ShardedTextProcessor(config, split)
    raw = read(corpus / "captions.json")
    tokenizer = load_tokenizer(f"{corpus}/bert")
    listed = read_list(corpus / f"how2_s3d_{split.shard_name}.lst")
    assert len(meta) == len(set(listed)) == count
    for index, video_id in enumerate(listed):
        key, _ = meta[index]
        assert key.video_id == video_id
        assert re.fullmatch(r"[A-Za-z0-9_-]{11}", video_id)
        features = video(key)
        captions = text(key)
        wanted = raw[video_id]
        assert features.dtype == np.float16
        # The norm of rows is 1. Measured 6e-5, because of rounding to float16.
        norms = np.linalg.norm(features.astype(np.float64), axis=1)
        np.testing.assert_allclose(norms, 1, atol=2e-4)
        for name in ("start", "end"):
            times = np.float32(captions[name])
            np.testing.assert_array_equal(times, np.float32(wanted[name]))
        for ids, sentence in zip(captions["cap"], wanted["text"], strict=True):
            assert letters_of(tokenizer.decode(ids)) == letters_of(sentence)
        assert max(captions["end"]) <= len(features)


def test_the_true_clips_can_be_loaded(corpus, config):
    clips = How2ClipMetaProcessor(config, Split.TEST)
    truth = true_clips(corpus)
    assert len(clips) == sum(map(len, truth.values()))
    assert list(truth) == read_list(corpus / "how2_s3d_val.lst")


def test_the_true_alignment_has_the_format_of_htm_align(corpus):
    raw = read(corpus / "captions.json")
    truth = read(corpus / "true_alignment.json")
    videos = true_clips(corpus)
    alignment = read_alignment(f"{corpus}/true_alignment.json")
    assert list(truth) == list(alignment) == list(videos)
    assert read_alignment(f"{corpus}/test_alignment.json") == alignment
    for video_id, rows in truth.items():
        shown = [[clip["start"], clip["end"]] for clip in videos[video_id]]
        said = raw[video_id]
        for number, (aligned, start, end, text) in enumerate(rows):
            assert text == said["text"][number]
            if aligned:
                assert [start, end] in shown
            else:
                assert start == said["start"][number]
                assert end == said["end"][number]
        assert len(rows) == len(said["text"])


def test_the_true_steps_have_the_format_of_coin(corpus):
    videos = true_clips(corpus)
    path = f"{corpus}/true_steps.json"
    steps = read_coin(path, "testing")
    labels = step_labels(path)
    assert list(steps) == list(videos)
    assert len(set(labels)) == len(labels)
    for video_id, clips in videos.items():
        for step, clip in zip(steps[video_id], clips, strict=True):
            assert step.segment == (clip["start"], clip["end"])
            label = labels[step.id - 1]  # "chop the onion with the knife"
            do, _, thing, *_ = label.split()
            assert {do, thing} <= set(clip["text"].split())


def test_no_word_is_unknown_and_some_words_are_split(corpus):
    tokenizer = load_tokenizer(f"{corpus}/bert")
    raw = read(corpus / "captions.json")
    pieces = set()
    longest = 0
    for captions in raw.values():
        for sentence in captions["text"]:
            tokens = tokenizer.tokenize(sentence)
            pieces.update(tokens)
            longest = max(longest, len(tokens))
    assert "[UNK]" not in pieces
    assert any(piece.startswith("##") for piece in pieces)
    # 32 word pieces of a caption are kept. Measured 17 for the longest caption.
    assert longest <= 24


def test_special_tokens_have_the_ids_of_bert_base_and_pieces_are_unique(corpus):
    bert = f"{corpus}/bert"
    special = special_tokens(bert)
    tokenizer = load_tokenizer(bert)
    assert (special.pad, special.cls, special.sep) == (0, 101, 102)
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (100, 103)
    assert read(corpus / "bert/config.json")["vocab_size"] == special.vocab_size
    vocabulary = make_vocabulary()
    assert len(vocabulary) == len(set(vocabulary))
    assert vocabulary[104] == "!"
    assert {"chop", "##ping"} <= set(vocabulary)
    assert "chopping" not in vocabulary


def test_present_participles_are_spelled_correctly():
    verbs = "chop stir glue dye saw mix boil press trim water"
    forms = "chopping stirring gluing dyeing sawing mixing boiling pressing trimming watering"
    for verb, form in zip(verbs.split(), forms.split(), strict=True):
        assert ing_form(verb) == form
