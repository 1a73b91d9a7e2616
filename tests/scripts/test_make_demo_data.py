"""The demo corpus: same bytes for same flags, readable by the project's own processors, and true to its own truth."""

import dataclasses
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from demo_corpus.settings import CorpusSettings
from demo_corpus.summary import count_videos
from demo_corpus.video import film, make_video
from demo_corpus.vocabulary import make_vocabulary
from demo_corpus.words import all_sentences, ing_form
from demo_corpus.world import make_world
from make_demo_data import main

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.processors import (
    How2ClipMetaProcessor,
    ShardedHow2MetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
)
from mmpt.processors.downstream.coin import read_coin, step_labels
from mmpt.processors.downstream.how2align import read_alignment
from mmpt.processors.tokenizer import load_tokenizer, special_tokens

SMALL = ["--num-videos", "7", "--num-val", "4", "--num-tasks", "3", "--shard-size", "3"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A small corpus on disk."""
    out = tmp_path_factory.mktemp("demo")
    assert main(["--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def world():
    return make_world(CorpusSettings())


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
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def read(path: Path):
    return json.loads(path.read_text())


# ---- the command


def test_same_flags_give_the_same_bytes(corpus, tmp_path):
    assert main(["--out", str(tmp_path), *SMALL]) == 0
    assert hashes(tmp_path) == hashes(corpus)


def test_another_seed_gives_other_videos(corpus, tmp_path):
    assert main(["--out", str(tmp_path), *SMALL, "--seed", "1"]) == 0
    ids = [set((folder / "how2_s3d_train.lst").read_text().split()) for folder in (corpus, tmp_path)]
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
    assert f"error: {tmp_path}/file/demo: cannot write here" in capsys.readouterr().err


def test_ctrl_c_leaves_no_manifest_and_exits_with_130(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("make_demo_data.write_corpus", interrupted)
    assert main(["--out", str(tmp_path), *SMALL]) == 130
    assert "run it again" in capsys.readouterr().err
    assert not (tmp_path / "demo.json").exists()


def test_an_unknown_flag_is_refused():
    with pytest.raises(SystemExit) as stop:
        main(["--nois", "1"])
    assert stop.value.code == 2


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
        np.testing.assert_allclose(np.linalg.norm(features.astype(np.float64), axis=1), 1, atol=2e-4)
        np.testing.assert_array_equal(np.float32(captions["start"]), np.float32(raw[video_id]["start"]))
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
    clips = {video["id"]: {(clip["start"], clip["end"]) for clip in video["clips"]} for video in videos}
    assert list(truth) == list(clips)
    for video_id, rows in truth.items():
        assert [text for *_, text in rows] == raw[video_id]["text"]
        assert {(start, end) for aligned, start, end, _ in rows if aligned} <= clips[video_id]
        said = zip(raw[video_id]["start"], raw[video_id]["end"], strict=True)
        assert all(aligned or when == (start, end) for (aligned, start, end, _), when in zip(rows, said, strict=True))


def test_the_true_alignment_is_a_file_of_htm_align_and_the_true_steps_one_of_coin(corpus):
    videos = {video["id"]: video["clips"] for video in read(corpus / "val_clips.json")["videos"]}
    assert list(read_alignment(f"{corpus}/true_alignment.json")) == list(videos)
    assert read_alignment(f"{corpus}/test_alignment.json") == read_alignment(f"{corpus}/true_alignment.json")
    path = f"{corpus}/true_steps.json"
    segments, labels = read_coin(path).videos["testing"], step_labels(path)
    assert list(segments) == list(videos)
    assert len(set(labels)) == len(labels)
    for video_id, clips in videos.items():
        shown = [(segment.start_s, segment.end_s) for segment in segments[video_id]]
        assert shown == [(clip["start"], clip["end"]) for clip in clips]
        for segment, clip in zip(segments[video_id], clips, strict=True):
            do, _, thing, *_ = labels[segment.step - 1].split()  # "chop the onion with the knife"
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
    forms = {"chop": "chopping", "stir": "stirring", "glue": "gluing", "dye": "dyeing", "saw": "sawing"}
    assert {verb: ing_form(verb) for verb in forms} == forms
    assert [ing_form(verb) for verb in ("mix", "boil", "press", "trim", "water")] == [
        "mixing", "boiling", "pressing", "trimming", "watering",
    ]  # fmt: skip


# ---- the truth


def test_seconds_of_a_step_look_like_it(world):
    """Nearest prototype, found by brute force, against the truth."""
    looks = [(place, kind) for place, step in enumerate(world.steps) for kind in step.kinds]
    prototypes = np.stack([world.prototype(*look) for look in looks]) @ world.basis
    steps, kinds, background = [], [], []
    for index in range(40):
        video = make_video(world, "train", index)
        scores = film(world, video).astype(np.float64) @ prototypes.T
        nearest = [looks[place] for place in scores.argmax(1)]
        shown_at = {second: shown for shown in video.performances for second in range(shown.start, shown.end)}
        steps += [nearest[second][0] == shown.step for second, shown in shown_at.items()]
        kinds += [nearest[second] == (shown.step, shown.kind) for second, shown in shown_at.items()]
        background += [scores[second].max() for second in range(video.num_seconds) if second not in shown_at]
        seen = [scores[second].max() for second in shown_at]
        assert np.mean(seen) > 0.4  # cosine; measured 0.51 on average
    assert np.mean(steps) > 0.9  # measured 0.96
    assert np.mean(kinds) > 0.8  # measured 0.90
    assert np.mean(background) < 0.35  # measured 0.28


def test_videos_follow_the_order_of_their_task(world):
    for index in range(60):
        video = make_video(world, "val", index)
        order = [world.tasks[video.task].index(shown.step) for shown in video.performances]
        first = [place for number, place in enumerate(order) if place not in order[:number]]
        assert first == sorted(first)
        ends = [(shown.start, shown.end) for shown in video.performances]
        assert all(start < end for start, end in ends)
        assert all(before[1] <= after[0] for before, after in pairwise(ends))
        assert ends[-1][1] <= video.num_seconds
        assert 3 <= len(ends) <= 14


def test_related_tasks_share_steps_in_another_order(world):
    shared = [set(one) & set(other) for one, other in zip(world.tasks, world.tasks[4:], strict=False)]
    assert all(len(steps) >= 3 for steps in shared)
    swapped = 0
    for steps, one, other in zip(shared, world.tasks, world.tasks[4:], strict=False):
        swapped += [step for step in one if step in steps] != [step for step in other if step in steps]
    assert swapped >= len(shared) / 2


def test_captions_are_in_order_and_apart():
    world = make_world(CorpusSettings(misalign=1.0, max_offset=60.0, irrelevant=0.8))
    for index in range(40):
        video = make_video(world, "train", index)
        times = [time for caption in video.captions for time in (caption.start, caption.end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= video.num_seconds


def test_a_caption_names_its_step(world):
    for index in range(20):
        video = make_video(world, "train", index)
        for caption in video.captions:
            if caption.about is not None:
                step = world.steps[video.performances[caption.about].step]
                assert step.thing in caption.text or step.do in caption.text


# ---- the rates


def rates(**settings):
    world = make_world(dataclasses.replace(CorpusSettings(), **settings))
    return count_videos([make_video(world, "train", index) for index in range(80)])


def test_durations_are_varied_around_two_minutes(world):
    seconds = [make_video(world, "train", index).num_seconds for index in range(300)]
    assert 60 <= min(seconds) < 80
    assert 190 < max(seconds) <= 220
    assert 115 < np.median(seconds) < 135


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_irrelevant_sets_the_share_of_chat(share):
    assert rates(irrelevant=share)["irrelevant"] == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_omit_sets_the_share_of_silent_steps(share):
    assert rates(omit=share)["silent"] == pytest.approx(share, abs=0.06)  # 3 standard deviations of 540 draws


def test_misalign_moves_narration_away_from_its_step():
    apart = [rates(misalign=share, irrelevant=0.1)["misaligned"] for share in (0.0, 0.4, 0.8)]
    assert apart == pytest.approx([0.0, 0.21, 0.41], abs=0.06)  # measured 0.004, 0.209, 0.406: half of 4 to 12 s is out


def test_noise_hides_the_steps():
    def cosine(noise: float) -> float:
        world = make_world(CorpusSettings(noise=noise))
        video = make_video(world, "train", 0)
        shown = video.performances[0]
        prototype = world.prototype(shown.step, shown.kind) @ world.basis
        return float(np.mean(film(world, video)[shown.start : shown.end].astype(np.float64) @ prototype))

    assert cosine(0.2) > cosine(1.0) + 0.05 > cosine(3.0) + 0.1


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one():
    small, large = (make_world(CorpusSettings(num_videos=count)) for count in (10, 1000))
    one, other = make_video(small, "train", 4), make_video(large, "train", 4)
    assert one == other
    np.testing.assert_array_equal(film(small, one), film(large, other))
