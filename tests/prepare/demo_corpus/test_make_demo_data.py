"""The demo corpus: same bytes for same flags, and readable by the project's own processors."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli.make_demo_data import main
from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.coin.data import read_coin, step_labels
from mmpt.endtasks.how2_clips import How2ClipMetaProcessor
from mmpt.endtasks.how2align.data import read_alignment
from mmpt.prepare.demo_corpus.vocabulary import make_vocabulary
from mmpt.prepare.demo_corpus.words import all_sentences, ing_form
from mmpt.processors import ShardedHow2MetaProcessor, ShardedTextProcessor, ShardedVideoProcessor
from mmpt.processors.tokenizer import load_tokenizer, special_tokens

SMALL = ["--num-videos", "7", "--num-val", "4", "--num-tasks", "3", "--shard-size", "3"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A small corpus on disk."""
    out = tmp_path_factory.mktemp("demo")
    assert main(["--out", str(out), *SMALL]) == 0
    return out


def dataset_config(corpus: Path) -> DatasetConfig:
    return DatasetConfig(
        train_path=f"{corpus}/how2_s3d_train.lst",
        val_path=f"{corpus}/how2_s3d_val.lst",
        test_path=f"{corpus}/val_clips.json",
        vfeat_dir=f"{corpus}/feat",
        tfeat_dir=f"{corpus}/feat/demo.bert-demo.",
        bert_name=f"{corpus}/bert",
    )


def hashes(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def read(path: Path):
    return json.loads(path.read_text())


# ---- the command


def test_same_flags_give_the_same_bytes(corpus, tmp_path):
    assert main(["--out", str(tmp_path), *SMALL]) == 0
    assert hashes(tmp_path) == hashes(corpus)


def test_another_seed_gives_other_videos(corpus, tmp_path):
    assert main(["--out", str(tmp_path), *SMALL, "--seed", "1"]) == 0
    ids = [
        set((folder / "how2_s3d_train.lst").read_text().split()) for folder in (corpus, tmp_path)
    ]
    assert not ids[0] & ids[1]


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
def test_a_damaged_corpus_is_made_anew(corpus, tmp_path, damage):
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


def test_mistakes_are_told_at_once_and_nothing_is_written(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new"), "--num-videos", "0", "--misalign", "1.5"]) == 2
    said = capsys.readouterr().err
    assert "error: " in said
    assert "`--num-videos` (training videos) must be from 1 to 1000000, but is 0." in said
    assert "`--misalign`" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_setting_that_is_no_number_is_refused(tmp_path, capsys, value):
    assert main(["--out", str(tmp_path), "--noise", value]) == 2
    assert "`--noise`" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["--out", str(tmp_path / "file" / "demo"), *SMALL]) == 2
    assert f"error: {tmp_path}/file/demo/demo.json: cannot be written" in capsys.readouterr().err


def test_ctrl_c_leaves_no_manifest_and_exits_with_130(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmpt.prepare.demo_corpus.manifest.write_corpus", interrupted)
    assert main(["--out", str(tmp_path), *SMALL]) == 130
    assert "run it again" in capsys.readouterr().err
    assert not (tmp_path / "demo.json").exists()


def test_an_unknown_flag_is_refused():
    assert main(["--nois", "1"]) == 2


# ---- the files


@pytest.mark.parametrize(("split", "count"), [(Split.TRAIN, 7), (Split.VALID, 4)])
def test_lists_shards_and_captions_agree(corpus, split, count):
    config = dataset_config(corpus)
    meta = ShardedHow2MetaProcessor(config, split)
    video, text = ShardedVideoProcessor(config, split), ShardedTextProcessor(config, split)
    raw = read(corpus / "captions.json")
    tokenizer = load_tokenizer(f"{corpus}/bert")
    listed = (corpus / f"how2_s3d_{split.shard_name}.lst").read_text().split()
    assert len(meta) == count
    assert len(set(listed)) == count
    for index, video_id in enumerate(listed):
        key, _ = meta[index]
        assert key.video_id == video_id
        assert re.fullmatch(r"[A-Za-z0-9_-]{11}", video_id)
        features, captions = video(key), text(key)
        assert features.dtype == np.float16
        # unit rows: float16 rounding leaves at most 6e-5 (measured)
        np.testing.assert_allclose(
            np.linalg.norm(features.astype(np.float64), axis=1), 1, atol=2e-4
        )
        np.testing.assert_array_equal(
            np.float32(captions["start"]), np.float32(raw[video_id]["start"])
        )
        np.testing.assert_array_equal(np.float32(captions["end"]), np.float32(raw[video_id]["end"]))
        words = [re.sub(r"\W", "", tokenizer.decode(ids)) for ids in captions["cap"]]
        assert words == [re.sub(r"\W", "", sentence).lower() for sentence in raw[video_id]["text"]]
        assert max(captions["end"]) <= len(features)


def test_the_true_clips_load_and_are_shown_in_the_video(corpus):
    config = dataset_config(corpus)
    clips = How2ClipMetaProcessor(config, Split.TEST)
    truth = read(corpus / "val_clips.json")["videos"]
    assert len(clips) == sum(len(video["clips"]) for video in truth)
    assert [video["id"] for video in truth] == (corpus / "how2_s3d_val.lst").read_text().split()


def test_the_true_alignment_has_a_row_per_caption(corpus):
    raw, truth = read(corpus / "captions.json"), read(corpus / "true_alignment.json")
    videos = read(corpus / "val_clips.json")["videos"]
    clips = {
        video["id"]: {(clip["start"], clip["end"]) for clip in video["clips"]} for video in videos
    }
    assert list(truth) == list(clips)
    for video_id, rows in truth.items():
        assert [text for *_, text in rows] == raw[video_id]["text"]
        assert {(start, end) for aligned, start, end, _ in rows if aligned} <= clips[video_id]
        said = zip(raw[video_id]["start"], raw[video_id]["end"], strict=True)
        assert all(
            aligned or when == (start, end)
            for (aligned, start, end, _), when in zip(rows, said, strict=True)
        )


def test_the_true_alignment_is_a_file_of_htm_align_and_the_true_steps_one_of_coin(corpus):
    videos = {video["id"]: video["clips"] for video in read(corpus / "val_clips.json")["videos"]}
    assert list(read_alignment(f"{corpus}/true_alignment.json")) == list(videos)
    assert read_alignment(f"{corpus}/test_alignment.json") == read_alignment(
        f"{corpus}/true_alignment.json"
    )
    path = f"{corpus}/true_steps.json"
    steps, labels = read_coin(path, "testing"), step_labels(path)
    assert list(steps) == list(videos)
    assert len(set(labels)) == len(labels)
    for video_id, clips in videos.items():
        shown = [step.segment for step in steps[video_id]]
        assert shown == [(clip["start"], clip["end"]) for clip in clips]
        for step, clip in zip(steps[video_id], clips, strict=True):
            do, _, thing, *_ = labels[step.id - 1].split()  # "chop the onion with the knife"
            assert {do, thing} <= set(clip["text"].split())


def test_special_tokens_lie_where_bert_base_has_them(corpus):
    special = special_tokens(f"{corpus}/bert")
    assert (special.pad, special.cls, special.sep) == (0, 101, 102)
    tokenizer = load_tokenizer(f"{corpus}/bert")
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (100, 103)
    assert read(corpus / "bert/config.json")["vocab_size"] == special.vocab_size


def test_no_word_is_unknown_and_some_are_split(corpus):
    tokenizer = load_tokenizer(f"{corpus}/bert")
    raw = read(corpus / "captions.json")
    texts = [sentence for captions in raw.values() for sentence in captions["text"]]
    pieces = [tokenizer.tokenize(sentence) for sentence in texts]
    assert not any("[UNK]" in sentence for sentence in pieces)
    assert any(piece.startswith("##") for sentence in pieces for piece in sentence)
    # 32 pieces are kept of a caption; the longest has 17 (measured)
    assert max(map(len, pieces)) <= 24


def test_the_vocabulary_holds_no_piece_twice():
    vocabulary = make_vocabulary(all_sentences())
    assert len(vocabulary) == len(set(vocabulary))
    assert vocabulary[104] == "!"
    assert {"chop", "##ping"} <= set(vocabulary)
    assert "chopping" not in vocabulary


def test_endings_are_spelled_as_in_english():
    forms = {
        "chop": "chopping",
        "stir": "stirring",
        "glue": "gluing",
        "dye": "dyeing",
        "saw": "sawing",
    }
    assert {verb: ing_form(verb) for verb in forms} == forms
    assert [ing_form(verb) for verb in ("mix", "boil", "press", "trim", "water")] == [
        "mixing",
        "boiling",
        "pressing",
        "trimming",
        "watering",
    ]
