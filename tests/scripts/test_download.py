"""The download command against a server on this machine: places, exit codes, and runs killed in the middle."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from download import download, list_catalogue, main
from download_catalogue import CATALOGUE

from mmpt.errors import UserError
from mmpt.utils.download import Patience
from tests import misbehaving_server as server
from tests.jobs import ROOT
from tests.misbehaving_server import Site

COIN_PATH = "/coin-dataset/annotations/master/COIN.json"
COIN = json.dumps({"database": {f"video{number}": {"class": number} for number in range(3000)}}).encode()
QUICK = Patience(tries=2, first_wait_s=0.001)


@pytest.fixture
def site() -> Iterator[Site]:
    with server.running_site() as running:
        yield running


def start(root: Path, site: Site, *arguments: str, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "scripts/download.py", *arguments, "--root", str(root), "--mirror", site.url]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=before)


def wait_for_bytes(path: Path, num_bytes: int) -> None:
    end = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size >= num_bytes):
        assert time.monotonic() < end, f"{path} never had {num_bytes} bytes"
        time.sleep(0.01)


def test_files_go_to_their_places_and_are_recorded(site: Site, tmp_path: Path) -> None:
    site.serve(COIN_PATH, COIN)
    assert main(["coin", "--root", str(tmp_path), "--mirror", site.url]) == 0
    assert (tmp_path / "data/coin/COIN.json").read_bytes() == COIN
    record = json.loads((tmp_path / "downloads.json").read_text())["files"]["data/coin/COIN.json"]
    assert record["sha256"] == hashlib.sha256(COIN).hexdigest()
    assert record["url"] == site.url + COIN_PATH


def test_one_failure_does_not_stop_the_rest(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.serve(COIN_PATH, COIN)
    assert main(["videoclip", "coin", "--root", str(tmp_path), "--mirror", site.url]) == 2
    assert re.search(r"^error: videoclip: .*checkpoint_best\.pt: cannot be had\. .* 404 ", capsys.readouterr().err)
    assert (tmp_path / "data/coin/COIN.json").exists()


def test_members_of_archives_go_to_their_places(site: Site, tmp_path: Path) -> None:
    names = ["MSRVTT_data.json", "MSRVTT_train.9k.csv", "MSRVTT_train.7k.csv", "MSRVTT_JSFUSION_test.csv"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(f"msrvtt_data/{name}", json.dumps([name]))
    site.serve("/ArrowLuo/CLIP4Clip/releases/download/v0.0/msrvtt_data.zip", packed.getvalue())
    note = b'{"database": {}}'
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        info = tarfile.TarInfo("youcookii_annotations_trainval.json")
        info.size = len(note)
        archive.addfile(info, io.BytesIO(note))
    site.serve("/static/YouCookII/youcookii_annotations_trainval.tar.gz", tar.getvalue())

    download(["msrvtt", "youcook"], tmp_path, mirror=site.url, patience=QUICK)
    assert {name: json.loads((tmp_path / "data/msrvtt" / name).read_text()) for name in names} == {
        n: [n] for n in names
    }
    assert (tmp_path / "data/youcook/youcookii_annotations_trainval.json").read_bytes() == note

    (tmp_path / "data/msrvtt/msrvtt_data.zip").unlink()  # the archive may go; what came out of it is still checked
    download(["msrvtt"], tmp_path, mirror=site.url, patience=QUICK)
    assert len(site.requests) == 2
    (tmp_path / "data/msrvtt/MSRVTT_train.7k.csv").write_text("other")
    with pytest.raises(UserError, match="has changed since"):
        download(["msrvtt"], tmp_path, mirror=site.url, patience=QUICK)


def test_what_no_program_can_fetch_is_explained_and_then_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["norton", "--root", str(tmp_path)]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    target = tmp_path / "runs/retri/norton/checkpoint_best.pt"
    assert "drive.google.com" in message
    assert f"Put it at {target}." in message
    target.parent.mkdir(parents=True)
    target.write_text("<!DOCTYPE html><html>Google Drive: quota exceeded</html>")
    assert main(arguments) == 2
    assert "a web page, not a torch file" in capsys.readouterr().err
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    assert main(arguments) == 0
    assert main(["how2-features", "--root", str(tmp_path)]) == 2


def test_ctrl_c_keeps_what_came_and_the_next_run_goes_on(site: Site, tmp_path: Path) -> None:
    site.serve(COIN_PATH, COIN, server.stalls(30_000), server.honest)
    part = tmp_path / "data/coin/COIN.json.part"
    run = start(tmp_path, site, "coin")
    wait_for_bytes(part, 30_000)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert part.read_bytes() == COIN[:30_000]
    assert main(["coin", "--root", str(tmp_path), "--mirror", site.url]) == 0
    assert site.ranges(COIN_PATH) == [None, "bytes=30000-"]
    assert (tmp_path / "data/coin/COIN.json").read_bytes() == COIN


def test_a_killed_run_is_continued_byte_by_byte(site: Site, tmp_path: Path) -> None:
    stops = [20_000, 25_000]
    site.serve(COIN_PATH, COIN, *[server.stalls(stop) for stop in stops], server.honest)
    part = tmp_path / "data/coin/COIN.json.part"
    for count in range(len(stops)):
        run = start(tmp_path, site, "coin")
        wait_for_bytes(part, sum(stops[: count + 1]))
        run.kill()
        run.communicate(timeout=120)
    assert main(["coin", "--root", str(tmp_path), "--mirror", site.url]) == 0
    assert site.ranges(COIN_PATH) == [None, "bytes=20000-", "bytes=45000-"]
    assert (tmp_path / "data/coin/COIN.json").read_bytes() == COIN


def test_a_disk_that_fills_up_keeps_what_fits(site: Site, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel takes the bytes up to it and then refuses."""
    site.serve(COIN_PATH, COIN)
    run = start(
        tmp_path,
        site,
        "coin",
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY)),
    )
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 2
    assert "cannot be written further than 0.1 MB" in errors
    assert (tmp_path / "data/coin/COIN.json.part").read_bytes() == COIN[:50_000]
    assert main(["coin", "--root", str(tmp_path), "--mirror", site.url]) == 0
    assert site.ranges(COIN_PATH) == [None, "bytes=50000-"]


def test_a_model_folder_comes_from_the_hub(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    folder = CATALOGUE["bert"].folder
    assert folder is not None

    def hub_file(handler: server.Handler, data: bytes) -> None:
        mark = hashlib.sha1(data).hexdigest()
        handler.reply(200, data, ETag=f'"{mark}"', X_Repo_Commit="a" * 40, Content_Length=len(data))

    prefix = f"/{folder.repo}/resolve/main"
    for name in folder.files[:-1]:
        site.serve(f"{prefix}/{name}", name.encode(), hub_file)
    with pytest.raises(UserError, match=r"model\.safetensors cannot be had from the Hugging Face hub"):
        download(["bert"], tmp_path, mirror=site.url)
    assert not (tmp_path / folder.target).exists()

    site.serve(f"{prefix}/{folder.files[-1]}", b"weights", hub_file)
    download(["bert"], tmp_path, mirror=site.url)
    assert sorted(path.name for path in (tmp_path / folder.target).iterdir()) == sorted(folder.files)
    count = len(site.requests)
    download(["bert"], tmp_path, mirror=site.url)
    assert len(site.requests) == count
    (tmp_path / folder.target / "vocab.txt").write_text("other")
    with pytest.raises(UserError, match=r"vocab\.txt: has changed"):
        download(["bert"], tmp_path, mirror=site.url)
    download(["bert"], tmp_path, mirror=site.url, force=True)
    (tmp_path / folder.target / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"lacks vocab\.txt"):
        download(["bert"], tmp_path, mirror=site.url)


# -- the command line and the catalogue
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["s3e"], r"s3e: not known\. There is: bert, videoclip"),
        (["coin", "--mirror", "ftp://host"], "`--mirror` must be an address such as https://host/prefix"),
        (["coin", "--mirror", "host:8000"], "`--mirror` must be"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--root", str(tmp_path)]) == 2
    assert re.match(f"error: {words}", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["coin", "--tries", "0"], ["coin", "--timeout", "-1"]])
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_the_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out == list_catalogue() + "\n"
    for name, item in CATALOGUE.items():
        assert re.search(rf"^{name} ", list_catalogue(), re.MULTILINE)
        for file in item.files:
            assert all(url in list_catalogue() for url in file.urls)


def test_every_entry_says_where_it_comes_from_or_what_to_do() -> None:
    targets = []
    for name, item in CATALOGUE.items():
        assert item.source, name
        assert item.files or item.folder or item.by_hand, name
        assert item.by_hand or all(file.urls for file in item.files), name
        for file in item.files:
            assert all(urlsplit(url).scheme in ("http", "https") and urlsplit(url).netloc for url in file.urls)
            targets += [file.target, *file.members.values()]
    assert len(targets) == len(set(targets))
    assert not any(Path(target).is_absolute() or ".." in Path(target).parts for target in targets)


def test_downloads_lie_where_the_yamls_look() -> None:
    places = {file.target for item in CATALOGUE.values() for file in item.files}
    settings = yaml.safe_load((ROOT / "projects/retri/norton/how2_pretrain.yaml").read_text())
    dataset = settings["dataset"]
    assert {dataset["train_path"], dataset["val_path"]} <= places
    assert settings["fairseq"]["checkpoint"]["restore_file"] in places
    assert CATALOGUE["bert"].folder is not None
    assert CATALOGUE["bert"].folder.target == dataset["bert_name"]
    assert os.path.basename(dataset["tfeat_dir"]).split(".")[0] + ".json" in {Path(place).name for place in places}
