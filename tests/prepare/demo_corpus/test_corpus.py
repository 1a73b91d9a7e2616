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
from mmpt.processors import ShardedHow2MetaProcessor, ShardedTextProcessor, ShardedVideoProcessor
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


# ---- the command


def test_another_seed_gives_other_videos(corpus, tmp_path):
    assert main(["--out", str(tmp_path), *SMALL, "--seed", "1"]) == 0
    ids, others = ((out / "how2_s3d_train.lst").read_text() for out in (corpus, tmp_path))
    assert not set(ids.split()) & set(others.split())


def test_the_manifest_names_every_file_with_its_hash(corpus):
    found = hashes(corpus)
    del found["demo.json"]
    manifest = read(corpus / "demo.json")
    assert manifest["files"] == found
    assert manifest["settings"]["num_videos"] == 7
    assert manifest["counts"]["train"]["videos"] == 7


def test_a_second_run_does_nothing(corpus, caplog):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    with caplog.at_level("INFO"):
        assert main(["--out", str(corpus), *SMALL]) == 0
    assert "already made" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before


@pytest.mark.parametrize("damage", ["changed", "lost", "manifest"])
def test_a_damaged_corpus_is_made_again_with_the_same_bytes(corpus, tmp_path, damage):
    main(["--out", str(tmp_path), *SMALL])
    if damage == "changed":
        data = bytearray((tmp_path / "feat/train_0_data.npy").read_bytes())
        data[-1] ^= 1
        (tmp_path / "feat/train_0_data.npy").write_bytes(data)
    elif damage == "lost":
        (tmp_path / "bert/vocab.txt").unlink()
    else:
        (tmp_path / "demo.json").write_text("{")
    assert main(["--out", str(tmp_path), *SMALL]) == 0
    assert hashes(tmp_path) == hashes(corpus)


def test_other_settings_replace_the_corpus_and_its_extra_shards(corpus, tmp_path):
    assert main(["--out", str(tmp_path), *SMALL, "--num-videos", "9", "--shard-size", "2"]) == 0
    assert (tmp_path / "feat/train_4_data.npy").exists()
    assert main(["--out", str(tmp_path), *SMALL]) == 0
    assert hashes(tmp_path) == hashes(corpus)


def test_all_mistakes_are_reported_and_nothing_is_written(tmp_path, capsys):
    flags = ["--num-videos", "0", "--misalign", "1.5", "--noise", "nan"]
    assert main(["--out", str(tmp_path / "new"), *flags]) == 2
    errors = capsys.readouterr().err
    assert "error: `--num-videos` must be from 1 to 1000000, but is 0." in errors
    assert "`--misalign`" in errors
    assert "`--noise`" in errors
    assert not (tmp_path / "new").exists()


def test_the_error_for_a_folder_that_cannot_be_written_names_it(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["--out", str(tmp_path / "file" / "demo"), *SMALL]) == 2
    assert f"error: {tmp_path}/file/demo/demo.json: cannot be written" in capsys.readouterr().err


def test_ctrl_c_leaves_no_manifest_and_exits_with_130(tmp_path, capsys):
    with mock.patch.object(demo_corpus, "make_world", side_effect=KeyboardInterrupt):
        assert main(["--out", str(tmp_path), *SMALL]) == 130
    assert "run it again" in capsys.readouterr().err
    assert not (tmp_path / "demo.json").exists()


# ---- the files


@pytest.mark.parametrize(("split", "count"), [(Split.TRAIN, 7), (Split.VALID, 4)])
def test_lists_shards_and_captions_agree(corpus, config, split, count):
    meta = ShardedHow2MetaProcessor(config, split)
    video, text = ShardedVideoProcessor(config, split), ShardedTextProcessor(config, split)
    raw = read(corpus / "captions.json")
    tokenizer = load_tokenizer(f"{corpus}/bert")
    listed = (corpus / f"how2_s3d_{split.shard_name}.lst").read_text().split()
    assert len(meta) == len(set(listed)) == count
    for index, video_id in enumerate(listed):
        key, _ = meta[index]
        assert key.video_id == video_id
        assert re.fullmatch(r"[A-Za-z0-9_-]{11}", video_id)
        features, captions = video(key), text(key)
        assert features.dtype == np.float16
        # The norm of rows is 1. Measured 6e-5, because of rounding to float16.
        norms = np.linalg.norm(features.astype(np.float64), axis=1)
        np.testing.assert_allclose(norms, 1, atol=2e-4)
        for name in ("start", "end"):
            times = np.float32(captions[name])
            np.testing.assert_array_equal(times, np.float32(raw[video_id][name]))
        words = [re.sub(r"\W", "", tokenizer.decode(ids)) for ids in captions["cap"]]
        assert words == [re.sub(r"\W", "", sentence).lower() for sentence in raw[video_id]["text"]]
        assert max(captions["end"]) <= len(features)


def test_the_true_clips_can_be_loaded(corpus, config):
    clips = How2ClipMetaProcessor(config, Split.TEST)
    truth = read(corpus / "val_clips.json")["videos"]
    assert len(clips) == sum(len(video["clips"]) for video in truth)
    assert [video["id"] for video in truth] == (corpus / "how2_s3d_val.lst").read_text().split()


def test_the_true_alignment_has_the_format_of_htm_align(corpus):
    raw, truth = read(corpus / "captions.json"), read(corpus / "true_alignment.json")
    videos = {video["id"]: video["clips"] for video in read(corpus / "val_clips.json")["videos"]}
    alignment = read_alignment(f"{corpus}/true_alignment.json")
    assert list(truth) == list(alignment) == list(videos)
    assert read_alignment(f"{corpus}/test_alignment.json") == alignment
    for video_id, rows in truth.items():
        shown = {(clip["start"], clip["end"]) for clip in videos[video_id]}
        said = zip(*(raw[video_id][name] for name in ("start", "end", "text")), strict=True)
        for (aligned, *row), caption in zip(rows, said, strict=True):
            assert tuple(row[:2]) in shown if aligned else tuple(row) == caption
            assert row[2] == caption[2]


def test_the_true_steps_have_the_format_of_coin(corpus):
    videos = {video["id"]: video["clips"] for video in read(corpus / "val_clips.json")["videos"]}
    path = f"{corpus}/true_steps.json"
    steps, labels = read_coin(path, "testing"), step_labels(path)
    assert list(steps) == list(videos)
    assert len(set(labels)) == len(labels)
    for video_id, clips in videos.items():
        for step, clip in zip(steps[video_id], clips, strict=True):
            assert step.segment == (clip["start"], clip["end"])
            do, _, thing, *_ = labels[step.id - 1].split()  # "chop the onion with the knife"
            assert {do, thing} <= set(clip["text"].split())


def test_no_word_is_unknown_and_some_words_are_split(corpus):
    tokenizer = load_tokenizer(f"{corpus}/bert")
    raw = read(corpus / "captions.json")
    texts = [sentence for captions in raw.values() for sentence in captions["text"]]
    pieces = [tokenizer.tokenize(sentence) for sentence in texts]
    assert not any("[UNK]" in sentence for sentence in pieces)
    assert any(piece.startswith("##") for sentence in pieces for piece in sentence)
    # 32 word pieces of a caption are kept. Measured 17 for the longest caption.
    assert max(map(len, pieces)) <= 24


def test_special_tokens_have_the_ids_of_bert_base_and_pieces_are_unique(corpus):
    special, tokenizer = special_tokens(f"{corpus}/bert"), load_tokenizer(f"{corpus}/bert")
    assert (special.pad, special.cls, special.sep) == (0, 101, 102)
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (100, 103)
    assert read(corpus / "bert/config.json")["vocab_size"] == special.vocab_size
    vocabulary = make_vocabulary()
    assert len(vocabulary) == len(set(vocabulary))
    assert vocabulary[104] == "!"
    assert {"chop", "##ping"} <= set(vocabulary)
    assert "chopping" not in vocabulary


def test_ing_forms_are_spelled_correctly():
    verbs = "chop stir glue dye saw mix boil press trim water"
    forms = "chopping stirring gluing dyeing sawing mixing boiling pressing trimming watering"
    assert [ing_form(verb) for verb in verbs.split()] == forms.split()
