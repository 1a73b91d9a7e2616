"""Tests of `mmpt extract` with several encoders, which share the decoding of each video."""

import signal
import time
from pathlib import Path

import av
import numpy as np
import pytest

from mmpt.cli import extract
from mmpt.errors import DataError
from mmpt.media.encoders import folder_names
from mmpt.prepare.features.feature_files import extracting
from mmpt.shards.feature_info import read_feature_info
from tests.support.extract_jobs import SECONDS, SMALL, contents, process, summary
from tests.support.tiny_encoders import save_encoder
from tests.support.videos import Clip, regular_times, truncate, write_video

COLOURS = "tests.support.extract_jobs.MeanColours"
"""An encoder, and the name of its folder."""
TWO = ["--encoder", "s3d", "--encoder", COLOURS]
FLOAT32 = ["--half-precision", "0"]


def files_of(folder: Path) -> dict[str, bytes | dict]:
    """Returns all files of a folder except for locks, which are empty."""
    files: dict[str, bytes | dict] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.name == "extract_summary.json":
            found = summary(path.parent)
            # The last bits of the sum depend on the order in which videos are finished.
            found["seconds_written"] = round(found["seconds_written"], 6)
            files[name] = found
        elif path.is_file() and path.suffix != ".lock":
            files[name] = path.read_bytes()
    return files


@pytest.fixture
def count_opened(monkeypatch):
    """Returns a list of the names of the files that are opened for decoding."""
    opened = []
    av_open = av.open

    def counting(name, *args, **options):
        opened.append(Path(name).stem)
        return av_open(name, *args, **options)

    monkeypatch.setattr(av, "open", counting)
    return opened


# ---- the same files as from separate runs


@pytest.mark.slow
def test_files_equal_the_files_of_separate_runs(videos, run_extract, tmp_path):
    """Some videos are damaged, and some cannot be read by any encoder. Their rates differ."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in videos.glob("*.mp4"):
        (raw / path.name).symlink_to(path)
    write_video(raw / "fast.mp4", regular_times(2, 60), SMALL)
    write_video(raw / "slow.mp4", regular_times(3, 2), SMALL)
    whole = write_video(tmp_path / "whole.mkv", regular_times(3), SMALL)
    truncate(whole, raw / "part.mkv", 0.6)
    (raw / "text.mkv").write_text("text")
    encoders = {
        "s3d": "s3d",
        COLOURS: COLOURS,
        "clip": f"hf:{save_encoder('clip', tmp_path / 'clip')}",
        "videomae": f"hf:{save_encoder('videomae', tmp_path / 'videomae')}",
    }
    together = []
    for folder, encoder in encoders.items():
        together += ["--encoder", encoder]
        own = ["--encoder", encoder]
        if folder in ("clip", "videomae"):
            own += ["--fps", "3"]
        assert run_extract(raw, tmp_path / "alone" / folder, *own, *FLOAT32) == 0
    out = tmp_path / "together"
    assert run_extract(raw, out, *together, "--fps", "3", *FLOAT32) == 0
    assert {path.name for path in out.iterdir()} == set(encoders)
    for folder in encoders:
        found = files_of(out / folder)
        assert found == files_of(tmp_path / "alone" / folder)
        assert sum(name.endswith(".npy") for name in found) == len(SECONDS) + 3
    assert list(summary(out / "clip")["failed"]) == ["text"]
    assert list(summary(out / "clip")["damaged"]) == ["part"]
    rates = [read_feature_info(out / folder).fps for folder in encoders]
    assert rates == [1, 2, 3, 3]


@pytest.mark.slow
def test_random_s3d_and_another_encoder_equal_separate_runs(videos, tmp_path):
    common = ["--vdir", str(videos / "d.mp4"), "--device=cpu", *FLOAT32]
    for out, *options in (
        ("both", *TWO, "--random-weights"),
        ("alone/s3d", "--random-weights"),
        (f"alone/{COLOURS}", "--encoder", COLOURS),
    ):
        assert extract.main([*common, "--fdir", str(tmp_path / out), *options]) == 0
    assert files_of(tmp_path / "both") == files_of(tmp_path / "alone")
    assert np.load(tmp_path / "both/s3d/d.npy").shape == (1, 512)


def test_a_video_that_one_encoder_cannot_use_is_written_for_the_other(
    videos, run_extract, tmp_path
):
    """The scaled frames of S3D would have more pixels than FFmpeg allows."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "b.mp4").symlink_to(videos / "b.mp4")
    thin = Clip(width=2, height=16_000, codec="png", pix_fmt="rgb24")
    write_video(raw / "thin.mov", regular_times(1, 4), thin)
    assert run_extract(raw, tmp_path / "out", *TWO) == 0
    assert sorted(contents(tmp_path / "out/s3d")) == ["b.npy"]
    assert sorted(contents(tmp_path / "out" / COLOURS)) == ["b.npy", "thin.npy"]
    failed = summary(tmp_path / "out/s3d")["failed"]
    assert failed == {"thin": "it cannot be read (Invalid argument)"}
    assert summary(tmp_path / "out" / COLOURS)["failed"] == {}
    # It is an error if an encoder has no features at all.
    (raw / "b.mp4").unlink()
    assert run_extract(raw, tmp_path / "other", *TWO) == 2


# ---- decoding once, and reruns


def test_each_video_is_decoded_once(videos, run_extract, tmp_path, count_opened):
    assert run_extract(videos, tmp_path, *TWO) == 0
    assert sorted(count_opened) == sorted(SECONDS)


def test_a_rerun_decodes_only_for_missing_features(
    videos, run_extract, tmp_path, count_opened
):
    assert run_extract(videos, tmp_path, *TWO) == 0
    before = files_of(tmp_path)
    (tmp_path / "s3d/a.npy").unlink()
    (tmp_path / COLOURS / "b.npy").unlink()
    (tmp_path / "s3d/c.npy").unlink()
    (tmp_path / COLOURS / "c.npy").write_bytes(b"cut")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    count_opened.clear()
    assert run_extract(videos, tmp_path, *TWO) == 0
    assert sorted(count_opened) == ["a", "b", "c"]
    kept = {path for path, at in times.items() if path.stat().st_mtime_ns == at}
    assert kept == set(times) - {tmp_path / COLOURS / "c.npy"}
    for folder in ("s3d", COLOURS):
        report = summary(tmp_path / folder)
        assert (report["present"], report["written"]) == (3, 2)
    after = files_of(tmp_path)
    names = {name for name in {*before, *after} if name.endswith(".npy")}
    for name in names:
        assert after[name] == before[name]


def test_features_that_one_encoder_made_alone_are_used(
    videos, run_extract, tmp_path, count_opened
):
    """The folder of an encoder is the same, whether it runs alone or with others."""
    assert run_extract(videos, tmp_path / "s3d", "--encoder", "s3d") == 0
    count_opened.clear()
    assert run_extract(videos, tmp_path, *TWO, "--limit", "2") == 0
    assert sorted(count_opened) == ["a", "b"]
    assert summary(tmp_path / "s3d")["present"] == 2
    assert summary(tmp_path / COLOURS)["written"] == 2


def test_a_part_of_the_videos_has_a_lock_and_a_summary_for_each_encoder(
    videos, run_extract, tmp_path, capsys
):
    with extracting(tmp_path / COLOURS, 1, 2):
        assert run_extract(videos, tmp_path, *TWO, "--shard", "1/2") == 2
        assert "another process extracts part 1 of 2" in capsys.readouterr().err
    assert contents(tmp_path) == {}
    for part in ("0/2", "1/2"):
        assert run_extract(videos, tmp_path, *TWO, "--shard", part) == 0
    for folder in ("s3d", COLOURS):
        counts = [
            summary(tmp_path / folder, f"extract_summary_{part}_of_2.json")["written"]
            for part in range(2)
        ]
        assert counts == [3, 2]


@pytest.mark.spawn
def test_an_interrupted_run_can_be_continued(videos, run_extract, tmp_path):
    child = process(videos, tmp_path, *TWO, delay=0.3)
    child.stdout.readline()
    while not list((tmp_path / "s3d").glob("*.npy")):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=120)[1]
    assert child.returncode == 130
    assert "run the same command again" in errors
    assert not list(tmp_path.rglob("*.tmp"))
    done = {}
    for folder in ("s3d", COLOURS):
        assert summary(tmp_path / folder)["finished"] is False
        done[folder] = len(list((tmp_path / folder).glob("*.npy")))
    assert done["s3d"] < len(SECONDS)
    assert run_extract(videos, tmp_path, *TWO) == 0
    assert run_extract(videos, tmp_path / "whole", *TWO) == 0
    for folder, number in done.items():
        assert summary(tmp_path / folder)["present"] == number
        whole = contents(tmp_path / "whole" / folder)
        assert contents(tmp_path / folder) == whole


# ---- the command line


def test_a_slash_at_the_end_of_a_name_is_ignored():
    names = ["s3d", "hf:./models/x/"]
    options = extract.Options(vdir="videos", fdir=Path("features"), encoder=names)
    assert options.encoders == ["s3d", "hf:./models/x"]


def test_folders_are_named_after_the_last_part_of_an_encoder():
    names = ["s3d", "hf:openai/clip-vit-base-patch32", "hf:./models/x/", "timm:vit.a"]
    wanted = ["s3d", "clip-vit-base-patch32", "x", "vit.a"]
    assert folder_names([*names, "own.Encoder"]) == [*wanted, "own.Encoder"]
    with pytest.raises(
        DataError, match=r"differ in their last part.*'clip' occurs 2 times"
    ):
        folder_names(["s3d", "hf:a/clip", "hf:b/clip"])
    for name in ("hf:", "hf:..", "hf:/"):
        with pytest.raises(DataError, match="must end in a name"):
            folder_names(["s3d", name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "s3d", "--encoder", "s3d"], "'s3d' occurs 2 times"),
        ([*TWO, "--fps", "2"], "--fps must be 1 with --encoder s3d, but is 2."),
        ([*TWO, "--encoder", "clip"], "`--encoder` must be s3d, hf:<model or folder>"),
        (["--encoder", COLOURS, "--random-weights"], "needs --encoder s3d"),
        (
            ["--encoder", COLOURS, "--weights", "foo.pth"],
            f"--weights needs --encoder s3d, the only encoder that takes it, but the encoder is "
            f"{COLOURS}",
        ),
        (["--encoder", COLOURS, "--dict", "x.npy"], "--dict needs --encoder s3d"),
    ],
)
def test_mistakes_give_one_message(
    videos, run_extract, tmp_path, capsys, options, message
):
    assert run_extract(videos, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_feature_paths_of_a_csv_file_are_paths_in_each_folder(
    videos, run_extract, tmp_path, capsys
):
    out = tmp_path / "out"
    table = tmp_path / "videos.csv"
    rows = {"b": "deep/b.npy", "d": str(out / "d.npy")}
    lines = [f"{videos / name}.mp4,{feature}\n" for name, feature in rows.items()]
    table.write_text("video_path,feature_path\n" + "".join(lines))
    assert run_extract(table, out, *TWO) == 0
    for folder in ("s3d", COLOURS):
        found = [
            path.relative_to(out / folder)
            for path in out.rglob("*.npy")
            if folder in path.parts
        ]
        assert sorted(map(str, found)) == ["d.npy", "deep/b.npy"]
    assert run_extract(table, tmp_path / "elsewhere", *TWO) == 2
    assert "`feature_path` must be relative, or in" in capsys.readouterr().err
