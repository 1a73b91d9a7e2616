"""`mmpt prepare --videos` with made-up features: its files, its report, reruns and mistakes."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli import prepare
from mmpt.config import load_config
from mmpt.errors import DataError
from mmpt.media.video_list import find_videos
from mmpt.processors import (
    ShardedHow2MetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
)
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.utils.io import write_json
from tests.support.extract_jobs import SMALL
from tests.support.own_data import (
    NAMES,
    THINGS,
    VTT,
    all_ids,
    contents,
    ids_of,
    make_project,
    report_of,
    write_captions,
)
from tests.support.videos import regular_times, write_video


@pytest.fixture
def folder(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a project folder with eight videos, seven of which have captions.

    The videos are empty files, because extraction is replaced.
    """
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    for name in NAMES:
        (tmp_path / "raw" / f"{name}.mp4").touch()
    monkeypatch.setattr(prepare, "extract_videos", made_up_features)
    return tmp_path


def made_up_features(options, videos, ids, report) -> None:
    (options.out / "feat").mkdir(parents=True, exist_ok=True)
    for job in videos.jobs:
        if job.video.stat().st_size:
            report["videos_without_features"][job.video_id] = "not empty"
        elif job.video_id in ids and not job.feature.exists():
            rng = np.random.default_rng(len(job.video_id))
            rows = rng.standard_normal((6, 512))
            np.save(job.feature, rows.astype(np.float16))


def run(corpus: Path, *more: str) -> int:
    options = [
        "--videos",
        "raw",
        "--captions",
        "captions",
        "--bert-name",
        f"{corpus}/bert",
    ]
    return prepare.main([*options, *more])


def test_only_one_encoder_is_accepted(corpus, folder, capsys):
    assert run(corpus, "--encoder", "s3d", "--encoder", "timm:vit") == 2
    assert (
        "`--encoder` must be given once, but is given 2 times."
        in capsys.readouterr().err
    )
    assert not (folder / "data").exists()


def test_the_error_for_features_of_another_encoder_suggests_out(tmp_path):
    (tmp_path / "raw").mkdir()
    write_video(tmp_path / "raw/a.mp4", regular_times(1), SMALL)
    options = prepare.Options(
        videos=tmp_path / "raw",
        captions=tmp_path / "raw",
        out=tmp_path / "out",
        encoder=["tests.support.extract_jobs.MeanColours"],
    )
    write_json(options.extracted / "extract_settings.json", {"type": "s3d"})
    videos = find_videos([str(options.videos)], options.extracted)
    with pytest.raises(DataError, match="Give another folder with `--out`, or remove"):
        prepare.extract_videos(options, videos, ["a"], {})


def test_all_files_that_training_reads_are_written(corpus, folder, capsys):
    assert run(corpus) == 0
    config = load_config("projects/retri/mine/pretrain.yaml")
    assert config.dataset.num_video_per_batch == 2
    assert config.task_type == "local_single"
    assert config.model.random_init
    assert config.model.num_hidden_video_layers == 2
    assert config.save_dir == "runs/mine/norton"
    assert config.model.layernorm_only
    out = capsys.readouterr().out
    assert "mmpt train projects/retri/mine/pretrain.yaml" in out
    assert "mmpt download videoclip" in out


@pytest.mark.slow
def test_the_processors_read_the_written_files(corpus, folder):
    assert run(corpus) == 0
    dataset = load_config("projects/retri/mine/pretrain.yaml").dataset
    tokenizer = load_tokenizer(f"{corpus}/bert")
    names = []
    for split in (Split.TRAIN, Split.VALID):
        meta = ShardedHow2MetaProcessor(dataset, split)
        video = ShardedVideoProcessor(dataset, split)
        text = ShardedTextProcessor(dataset, split)
        for index in range(len(meta)):
            key, _ = meta[index]
            name = key.video_id
            names.append(name)
            thing = THINGS[NAMES.index(name)]
            said = [f"chop the {thing}", f"put the {thing} in the pan"]
            ids = tokenizer(said, add_special_tokens=False)["input_ids"]
            assert text(key) == {"start": [0.5, 2.0], "end": [2.0, 5.5], "cap": ids}
            features = np.load(f"data/mine/feat/{name}.npy")
            np.testing.assert_array_equal(video(key), features)
    assert sorted(names) == NAMES[:7]


@pytest.mark.slow
def test_the_report_lists_videos_and_captions_that_are_left_out(corpus, folder):
    write_captions(folder, "nobody.srt", "1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    broken, empty, undecodable = NAMES[:3]
    not_utf8 = b"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n\xff\xfe\xfa\n"
    (folder / "captions" / f"{broken}.en.vtt").write_bytes(not_utf8)
    write_captions(folder, f"{empty}.en.vtt", "WEBVTT\n\n")
    (folder / "raw" / f"{undecodable}.mp4").write_text("broken")
    assert run(corpus) == 0
    report = report_of(folder)
    without_captions = report["videos_without_captions"]
    assert set(without_captions) == {broken, empty, NAMES[7]}
    assert "no caption" in without_captions[empty]
    assert without_captions[NAMES[7]] == "no caption file"
    assert report["videos_without_features"] == {undecodable: "not empty"}
    assert report["captions_without_video"] == ["captions/nobody.srt"]
    assert all_ids(folder) == NAMES[3:7]


@pytest.fixture
def languages(folder: Path) -> Path:
    """Returns the project folder with captions in several languages.

    Video 0 has English and German captions, video 1 German ones, video 7 French ones, and the
    others English ones. Only the content of the French file names its language.
    """
    for number in (0, 1):
        write_captions(folder, f"{NAMES[number]}.de.vtt", VTT.format("Zwiebel"))
    (folder / "captions" / f"{NAMES[1]}.en.vtt").unlink()
    header = "WEBVTT\nKind: captions\nLanguage: fr\n"
    french = VTT.format("oignon").replace("WEBVTT\n", header)
    write_captions(folder, f"{NAMES[7]}.vtt", french)
    return folder


def num_german(folder: Path) -> int:
    """Returns the number of German captions in the corpus."""
    path = folder / "data/mine/captions.jsonl"
    return path.read_text().count("Zwiebel")


@pytest.mark.slow
def test_the_report_lists_captions_in_other_languages(corpus, languages):
    assert run(corpus) == 0
    report = report_of(languages)
    assert report["videos_without_captions"] == {
        NAMES[1]: "no caption file in en, but in de",
        NAMES[7]: "no caption file in en, but in fr",
    }
    assert report["captions_unused"] == {
        f"captions/{NAMES[0]}.de.vtt": f"{NAMES[0]}.en.vtt is preferred",
        f"captions/{NAMES[1]}.de.vtt": "not in en",
        f"captions/{NAMES[7]}.vtt": "not in en",
    }
    first = NAMES[0]
    assert report["captions_used"][first] == f"captions/{first}.en.vtt"
    assert report["captions_without_video"] == []
    assert num_german(languages) == 0


@pytest.mark.slow
def test_the_log_counts_captions_by_language(corpus, languages, caplog):
    caplog.set_level("INFO")
    assert run(corpus) == 0
    assert "caption files used: 6 en" in caplog.text
    assert (
        f"caption files not used: captions/{NAMES[0]}.de.vtt, captions/" in caplog.text
    )
    assert (
        "videos with captions in other languages only: 1 de, 1 fr. Name the"
        in caplog.text
    )


@pytest.mark.slow
def test_wanted_languages_may_change_between_runs(corpus, languages, caplog):
    caplog.set_level("INFO")
    assert run(corpus, "--language", "de,en", "--language", "fr") == 0
    assert "caption files used: 5 en, 2 de, 1 fr" in caplog.text
    assert report_of(languages)["videos_without_captions"] == {}
    assert num_german(languages) == 4
    assert run(corpus) == 0
    assert num_german(languages) == 0
    assert len(all_ids(languages)) == 6


def test_a_caption_folder_that_cannot_be_read_is_an_error(
    corpus, folder, capsys, monkeypatch
):
    iterdir = Path.iterdir

    def refused(path):
        if path.name == "captions":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert run(corpus) == 2
    assert capsys.readouterr().err.startswith("error: captions: Permission denied.")


@pytest.mark.slow
def test_files_of_a_killed_run_are_removed(corpus, folder):
    out = folder / "data/mine"
    out.mkdir(parents=True)
    for name in (".report.json.abc_123.tmp", ".val.lst.x.tmp", ".other.tmp"):
        (out / name).write_text("{")
    (out / "check").mkdir()
    (out / "check/.histograms.png.abc_123.tmp").touch()
    assert run(corpus) == 0
    assert list(out.rglob(".*.tmp")) == [out / ".other.tmp"]


@pytest.mark.slow
def test_a_second_run_changes_nothing_unless_there_are_more_videos(corpus, folder):
    assert run(corpus) == 0
    before = contents(folder)
    assert run(corpus) == 0
    assert contents(folder) == before
    write_captions(folder, f"{NAMES[7]}.vtt", VTT.format("onion"))
    assert run(corpus) == 0
    assert len(ids_of(folder, "train")) == 6
    assert report_of(folder)["videos_without_captions"] == {}


@pytest.mark.slow
def test_implausible_captions_are_reported_after_all_files_are_written(
    corpus, folder, capsys
):
    for path in (folder / "captions").rglob("*.en.vtt"):
        path.unlink()
    times = {"start": [500, 2000], "end": [2000, 5500]}  # milliseconds
    for name in NAMES[:7]:
        captions = times | {"text": [f"chop the {name}", "put it in the pan"]}
        write_captions(folder, f"{name}.json", json.dumps(captions))
    assert run(corpus) == 2
    err = capsys.readouterr().err
    assert "milliseconds: divide them by 1000" in err
    assert "All files were written, including projects/retri/mine/pretrain.yaml." in err
    statistics = json.loads((folder / "data/mine/check/statistics.json").read_text())
    figures = {finding["figure"] for finding in statistics["findings"]}
    assert "norm of a feature row" in figures
    # With times in seconds, there are only warnings.
    for path in (folder / "captions").glob("*.json"):
        captions = json.loads(path.read_text())
        captions |= {"start": [0.5, 2.0], "end": [2.0, 5.5]}
        path.write_text(json.dumps(captions))
    assert run(corpus) == 0


@pytest.mark.slow
def test_the_videoclip_recipe_starts_from_bert(corpus, folder):
    assert (
        run(corpus, "--recipe", "videoclip", "--val-share", "0.4", "--random-weights")
        == 0
    )
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
        (
            ["--yaml", "projects/retri/norton/how2_demo.yaml"],
            "was not made by this command",
        ),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(
    corpus, folder, capsys, more, message
):
    assert run(corpus, *more) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert not (folder / "data/mine/shards").exists()


def test_without_the_folder_projects_an_error_says_where_it_is(corpus, folder, capsys):
    shutil.rmtree(folder / "projects")
    assert run(corpus) == 2
    err = capsys.readouterr().err
    assert "error: `mmpt prepare` reads the folder `projects` of MMPT, but" in err
    assert "Run the command in a checkout of MMPT, or copy" in err
    assert not (folder / "data").exists()


def test_videos_without_any_captions_are_an_error(corpus, folder, capsys):
    shutil.rmtree(folder / "captions")
    (folder / "captions").mkdir()
    assert run(corpus) == 2
    assert (
        "at least 2 videos with captions and features are needed"
        in capsys.readouterr().err
    )
    assert len(report_of(folder)["videos_without_captions"]) == 8
