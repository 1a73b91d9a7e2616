"""Tests of preparing a user's own videos: matching captions, settings, reruns and the report."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli import prepare
from mmpt.config import load_config
from mmpt.prepare.captions.language import UNKNOWN, Language, parse_wanted
from mmpt.prepare.own_videos import (
    choose_batch_size,
    choose_captions,
    find_captions,
    fitting_settings,
    split_ids,
)
from mmpt.processors import ShardedHow2MetaProcessor, ShardedTextProcessor, ShardedVideoProcessor
from mmpt.processors.tokenizer import load_tokenizer
from tests.support.paths import ROOT

VTT = (
    "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nchop the {0}\n\n"
    "00:00:02.000 --> 00:00:05.500\nput the {0} in the pan\n"
)
NAMES = [f"clip {number}.v{number}" for number in range(8)]


# ---- decisions


def chosen(ids: str, files: str, wanted: str = "en", **inside: str) -> dict[str, str]:
    """Returns {video id: caption file that is used}.

    Args:
        ids: video ids, separated by spaces.
        files: caption files, separated by spaces.
        wanted: wanted languages, separated by commas.
        inside: the languages that the contents of files name, by file stem.
    """
    paths = [Path(name) for name in files.split()]
    tags = {name: Language(tag) for name, tag in inside.items()}
    found = find_captions(ids.split(), paths, lambda path: tags.get(path.stem, UNKNOWN))
    assert sorted(path for group in found.values() for path in group) == sorted(paths)
    used = {
        name: choose_captions(group, parse_wanted([wanted]))
        for name, group in found.items()
        if name
    }
    return {name: str(path) for name, path in used.items() if path}


def test_caption_files_are_matched_with_videos_by_name():
    names = "a.vtt a.json b.en.vtt b.en-US.srt c.d.srt c.d.en.vtt f.SRT e.info.json c.vtt"
    used = {"f": "f.SRT", "a": "a.vtt", "b": "b.en.vtt", "c.d": "c.d.en.vtt"}
    assert chosen("f a b c.d g", names) == used


@pytest.mark.parametrize(
    ("files", "wanted", "used"),
    [
        ("tea.de.vtt tea.en.vtt", "en", "tea.en.vtt"),
        ("tea.de.vtt tea.en.vtt", "de", "tea.de.vtt"),
        ("tea.de.vtt tea.fr.vtt", "en,fr,de", "tea.fr.vtt"),
        ("tea.de.vtt tea.ENG.SRT", "en", "tea.ENG.SRT"),
        ("tea.en-orig.vtt tea.en_GB.srt tea.a.en.vtt", "en", "tea.en_GB.srt"),
        ("tea.en-US.vtt tea.en.json", "en", "tea.en.json"),
        ("tea.en.srt tea.en.vtt tea.en.json", "en", "tea.en.vtt"),
        ("tea.en-de.vtt tea.a.en.vtt tea.de.vtt", "en", "tea.a.en.vtt"),
        ("tea.en-de.vtt tea.de-en.vtt", "de", "tea.de-en.vtt"),
        ("tea.en-US.vtt tea.en-GB.vtt", "en-GB", "tea.en-GB.vtt"),
        ("tea.zh-Hant.srt tea.zh-Hans.srt", "zh-Hant", "tea.zh-Hant.srt"),
        ("tea.de.vtt tea.json", "en", "tea.json"),
        ("tea.de.vtt tea.json", "en,de", "tea.json"),
        ("tea.json tea.mp4.vtt tea.und.srt", "zh", "tea.json"),
        ("tea.mp4.vtt tea.zh.srt tea.ts.vtt", "zh", "tea.zh.srt"),
        ("tea.wav.srt tea.ts.vtt", "en", "tea.wav.srt"),
        ("tea.srt tea.en.srt tea.a.en.srt", "en", "tea.en.srt"),
        ("tea.en-uYU-mmqFLq8.vtt tea.en.srt", "en", "tea.en.srt"),
    ],
)
def test_the_file_in_the_preferred_language_is_used(files, wanted, used):
    assert chosen("tea", files, wanted) == {"tea": used}
    assert chosen("tea", " ".join(reversed(files.split())), wanted) == {"tea": used}


def test_a_part_of_the_id_of_a_known_video_is_not_a_language():
    assert chosen("my my.it", "my.it.vtt my.en.vtt") == {"my": "my.en.vtt", "my.it": "my.it.vtt"}
    assert chosen("my.it", "my.it.vtt my.it.a.en.vtt") == {"my.it": "my.it.vtt"}
    assert chosen("a.b.en", "a.b.en.vtt a.b.en.de.vtt") == {"a.b.en": "a.b.en.vtt"}
    assert chosen("tea tea.a", "tea.a.en.vtt") == {"tea.a": "tea.a.en.vtt"}
    assert chosen("my", "my.it.vtt") == {}


def test_the_language_in_the_content_counts_if_the_name_has_none():
    assert chosen("tea", "tea.srt tea.vtt", tea="de") == {}
    assert chosen("tea pie", "tea.en.vtt tea.srt pie.json", "de", tea="de", pie="fr") == {
        "tea": "tea.srt"
    }


@pytest.mark.parametrize("recipe", ["norton", "videoclip"])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.999])
def test_settings_fit_any_number_of_videos(recipe, share):
    for num in [*range(2, 70), 127, 128, 511, 512, 1000, 5000]:
        ids = [f"v{index}" for index in range(num)]
        batch = choose_batch_size(num, recipe)
        train, val = split_ids(ids, share, batch)
        assert sorted(train + val) == sorted(ids)
        assert min(len(train), len(val)) >= batch >= 1
        settings = fitting_settings(len(train), batch, recipe, 6)
        assert settings["dataset"]["num_video_per_batch"] == batch
        assert settings["retrieval"]["num_cands"] >= batch
        assert 1 <= settings["retrieval"]["centroids"] <= len(train)
        assert settings["optimization"]["warmup_updates"] >= 1


def test_settings_for_howto100m_are_those_of_the_recipe():
    batch = choose_batch_size(1_200_000, "norton")
    _, val = split_ids([str(index) for index in range(20_000)], 0.05, batch)
    assert len(val) == 1000
    settings = fitting_settings(1_200_000, batch, "norton", 6)
    recipe = load_config(ROOT / "projects/retri/norton/how2_pretrain.yaml")
    assert batch == recipe.dataset.num_video_per_batch
    for key, value in settings["retrieval"].items():
        assert value == getattr(recipe.retrieval, key)
    for group in ("optimization", "common"):
        for key, value in settings[group].items():
            assert value == recipe.option(group, key)


def test_adding_a_video_hardly_changes_the_split():
    ids = [f"v{index}" for index in range(100)]
    _, before = split_ids(ids, 0.2, 4)
    _, after = split_ids([*ids, "one more"], 0.2, 4)
    assert len(set(before) ^ set(after)) <= 2


# ---- the command, with made-up features


@pytest.fixture
def folder(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a project folder with eight videos, seven of which have captions.

    The videos are empty files, because extraction is replaced.
    """
    shutil.copytree(ROOT / "projects", tmp_path / "projects")
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "captions", "captions/more"):
        (tmp_path / name).mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / "raw" / f"{name}.mp4").touch()
        place = tmp_path / ("captions/more" if number == 3 else "captions")
        (place / f"{name}.en.vtt").write_text(VTT.format(["onion", "carrot"][number % 2]))
    (tmp_path / "captions" / f"{NAMES[7]}.en.vtt").unlink()
    monkeypatch.setattr(prepare, "extract_videos", made_up_features)
    return tmp_path


def made_up_features(options, videos, ids, report) -> None:
    (options.out / "feat").mkdir(parents=True, exist_ok=True)
    for job in videos.jobs:
        if job.video.stat().st_size:
            report["videos_without_features"][job.video_id] = "not empty"
        elif job.video_id in ids and not job.feature.exists():
            rng = np.random.default_rng(len(job.video_id))
            np.save(job.feature, rng.standard_normal((6, 512)).astype(np.float16))


def run(corpus: Path, *more: str) -> int:
    options = ["--videos", "raw", "--captions", "captions", "--bert-name", f"{corpus}/bert"]
    return prepare.main([*options, *more])


def report_of(folder: Path) -> dict:
    return json.loads((folder / "data/mine/report.json").read_text())


def ids_of(folder: Path, split: str) -> list[str]:
    return (folder / f"data/mine/{split}.lst").read_text().splitlines()


def test_all_files_that_training_reads_are_written(corpus, folder, capsys):
    assert run(corpus) == 0
    config = load_config("projects/retri/mine/pretrain.yaml")
    assert config.dataset.num_video_per_batch == 2
    assert config.task_type == "local_single"
    assert config.model.random_init
    assert config.model.num_hidden_video_layers == 2
    assert config.save_dir == "runs/mine/norton"
    tokenizer = load_tokenizer(f"{corpus}/bert")
    names = []
    for split in (Split.TRAIN, Split.VALID):
        meta = ShardedHow2MetaProcessor(config.dataset, split)
        video = ShardedVideoProcessor(config.dataset, split)
        text = ShardedTextProcessor(config.dataset, split)
        for index in range(len(meta)):
            key, _ = meta[index]
            names.append(key.video_id)
            number = NAMES.index(key.video_id)
            thing = ["onion", "carrot"][number % 2]
            assert text(key)["start"] == [0.5, 2.0]
            assert text(key)["end"] == [2.0, 5.5]
            said = [f"chop the {thing}", f"put the {thing} in the pan"]
            wanted = tokenizer(said, add_special_tokens=False)["input_ids"]
            assert text(key)["cap"] == wanted
            np.testing.assert_array_equal(video(key), np.load(f"data/mine/feat/{key.video_id}.npy"))
    assert sorted(names) == NAMES[:7]
    out = capsys.readouterr().out
    assert "mmpt train projects/retri/mine/pretrain.yaml" in out
    assert "mmpt download videoclip" in out


def test_the_report_lists_videos_and_captions_that_are_left_out(corpus, folder):
    (folder / "captions" / "nobody.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    broken = b"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n\xff\xfe\xfa\n"
    (folder / "captions" / f"{NAMES[0]}.en.vtt").write_bytes(broken)
    (folder / "captions" / f"{NAMES[1]}.en.vtt").write_text("WEBVTT\n\n")
    (folder / "raw" / f"{NAMES[2]}.mp4").write_text("broken")
    assert run(corpus) == 0
    report = report_of(folder)
    assert set(report["videos_without_captions"]) == {NAMES[0], NAMES[1], NAMES[7]}
    assert "no caption" in report["videos_without_captions"][NAMES[1]]
    assert report["videos_without_captions"][NAMES[7]] == "no caption file"
    assert report["videos_without_features"] == {NAMES[2]: "not empty"}
    assert report["captions_without_video"] == ["captions/nobody.srt"]
    assert sorted(ids_of(folder, "train") + ids_of(folder, "val")) == NAMES[3:7]


def test_the_report_lists_captions_in_other_languages(corpus, folder, caplog):
    for number in (0, 1):
        german = VTT.format("Zwiebel")
        (folder / "captions" / f"{NAMES[number]}.de.vtt").write_text(german)
    (folder / "captions" / f"{NAMES[1]}.en.vtt").unlink()
    header = "WEBVTT\nKind: captions\nLanguage: fr\n"
    text = VTT.format("oignon").replace("WEBVTT\n", header)
    (folder / "captions" / f"{NAMES[7]}.vtt").write_text(text)
    caplog.set_level("INFO")
    assert run(corpus) == 0
    report = report_of(folder)
    assert report["videos_without_captions"] == {
        NAMES[1]: "no caption file in en, but in de",
        NAMES[7]: "no caption file in en, but in fr",
    }
    assert report["captions_unused"] == {
        f"captions/{NAMES[0]}.de.vtt": f"{NAMES[0]}.en.vtt is preferred",
        f"captions/{NAMES[1]}.de.vtt": "not in en",
        f"captions/{NAMES[7]}.vtt": "not in en",
    }
    assert report["captions_used"][NAMES[0]] == f"captions/{NAMES[0]}.en.vtt"
    assert report["captions_without_video"] == []
    assert "Zwiebel" not in (folder / "data/mine/captions.jsonl").read_text()
    assert "caption files used: 6 en" in caplog.text
    assert f"caption files not used: captions/{NAMES[0]}.de.vtt, captions/" in caplog.text
    assert "videos with captions in other languages only: 1 de, 1 fr. Name the" in caplog.text

    caplog.clear()
    assert run(corpus, "--language", "de,en", "--language", "fr") == 0
    assert "caption files used: 5 en, 2 de, 1 fr" in caplog.text
    assert report_of(folder)["videos_without_captions"] == {}
    assert (folder / "data/mine/captions.jsonl").read_text().count("Zwiebel") == 4

    assert run(corpus) == 0
    assert "Zwiebel" not in (folder / "data/mine/captions.jsonl").read_text()
    assert len(ids_of(folder, "train") + ids_of(folder, "val")) == 6


def test_a_caption_folder_that_cannot_be_read_is_an_error(corpus, folder, capsys, monkeypatch):
    iterdir = Path.iterdir

    def refused(path):
        if path.name == "captions":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert run(corpus) == 2
    assert capsys.readouterr().err.startswith("error: captions: Permission denied.")


def test_a_second_run_changes_nothing_unless_there_are_more_videos(corpus, folder):
    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    (folder / "data/mine").mkdir(parents=True)
    for name in (".report.json.abc_123.tmp", ".val.lst.x.tmp"):  # left by a run that was killed
        (folder / "data/mine" / name).write_text("{")
    (folder / "data/mine/.other.tmp").touch()
    assert run(corpus) == 0
    assert [path.name for path in (folder / "data/mine").glob(".*.tmp")] == [".other.tmp"]
    before = contents()
    assert run(corpus) == 0
    assert contents() == before
    (folder / "captions" / f"{NAMES[7]}.vtt").write_text(VTT.format("onion"))
    assert run(corpus) == 0
    assert len(ids_of(folder, "train")) == 6
    assert report_of(folder)["videos_without_captions"] == {}


def test_implausible_captions_are_reported_after_all_files_are_written(corpus, folder, capsys):
    for name in NAMES[:7]:
        path = next((folder / "captions").rglob(f"{name}.en.vtt"))
        path.unlink()
        times = {"start": [500, 2000], "end": [2000, 5500]}  # milliseconds
        said = {"text": [f"chop the {name}", "put it in the pan"]}
        (folder / "captions" / f"{name}.json").write_text(json.dumps(times | said))
    assert run(corpus) == 2
    err = capsys.readouterr().err
    assert "milliseconds: divide them by 1000" in err
    assert "Everything is written, also projects/retri/mine/pretrain.yaml." in err
    findings = json.loads((folder / "data/mine/check/statistics.json").read_text())["findings"]
    assert "length of a feature row" in {one["figure"] for one in findings}
    for path in (folder / "captions").glob("*.json"):
        captions = json.loads(path.read_text()) | {"start": [0.5, 2.0], "end": [2.0, 5.5]}
        path.write_text(json.dumps(captions))
    assert run(corpus) == 0


def test_the_videoclip_recipe_starts_from_bert(corpus, folder):
    assert run(corpus, "--recipe", "videoclip", "--val-share", "0.4", "--random-weights") == 0
    config = load_config("projects/retri/mine/pretrain.yaml")
    recipe = load_config("projects/retri/videoclip/how2_pretrain.yaml")
    assert config.save_dir == "runs/mine/videoclip"
    assert config.loss.loss_cls == recipe.loss.loss_cls
    assert config.option("checkpoint", "restore_file") is None
    assert len(ids_of(folder, "val")) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--captions", "no/such"], "no/such: no such folder."),
        (["--videos", "no/such"], "no/such: no such folder"),
        (["--language", "english"], "`--language` must be codes of languages"),
        (["--yaml", "projects/retri/norton/how2_demo.yaml"], "was not made by this command"),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(corpus, folder, capsys, more, message):
    assert run(corpus, *more) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert not (folder / "data/mine/shards").exists()


def test_videos_without_any_captions_are_an_error(corpus, folder, capsys):
    shutil.rmtree(folder / "captions")
    (folder / "captions").mkdir()
    assert run(corpus) == 2
    assert "at least 2 videos with captions are needed" in capsys.readouterr().err
    assert len(report_of(folder)["videos_without_captions"]) == 8
