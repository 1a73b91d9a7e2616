"""The download command against a server on this machine: places, exit codes, killed runs."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from mmpt.cli.download import main
from mmpt.prepare.download.catalogue import CATALOGUE
from mmpt.prepare.download.items import list_catalogue
from tests import misbehaving_server as server
from tests.jobs import ROOT
from tests.misbehaving_server import Site

COIN_PATH = "/coin-dataset/annotations/master/COIN.json"
COIN = b'{"database": "' + random.Random(0).randbytes(12 * 2**20).hex().encode() + b'"}'
PIECE = 10 * 2**20  # bytes that the library writes at once
MSRVTT = [
    *("MSRVTT_data.json", "MSRVTT_train.9k.csv"),
    *("MSRVTT_train.7k.csv", "MSRVTT_JSFUSION_test.csv"),
]


@pytest.fixture
def site() -> Iterator[Site]:
    with server.running_site() as running:
        yield running


@pytest.fixture
def run(site: Site, tmp_path: Path) -> Callable[..., int]:
    """The command in this process; the project's folder is `tmp_path`."""
    return lambda *words: main([*words, "--root", str(tmp_path), "--mirror", site.url])


@pytest.fixture
def start(site: Site, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """The command in a process of its own."""
    options = ["--root", str(tmp_path), "--mirror", site.url]
    command = [sys.executable, "scripts/download.py", "coin", *options]
    return lambda **how: subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **how
    )


def wait_for_bytes(folder: Path, num_bytes: int) -> None:
    end = time.monotonic() + 120
    while not any(path.stat().st_size >= num_bytes for path in folder.glob("*.part")):
        assert time.monotonic() < end, f"no file in {folder} ever had {num_bytes} bytes"
        time.sleep(0.01)


def test_one_failure_does_not_stop_the_rest(
    site: Site, run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.serve(COIN_PATH, COIN)
    assert run("videoclip", "coin") == 2
    words = r"^error: videoclip: .*checkpoint_best\.pt: cannot be downloaded\. .* 404 "
    assert re.search(words, capsys.readouterr().err, re.MULTILINE)
    assert (tmp_path / "data/coin/COIN.json").read_bytes() == COIN
    record = json.loads((tmp_path / "downloads.json").read_text())["files"]["data/coin/COIN.json"]
    assert record["sha256"] == hashlib.sha256(COIN).hexdigest()
    assert record["url"] == site.url + COIN_PATH


def test_members_of_archives_go_to_their_places(
    site: Site, run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in MSRVTT:
            archive.writestr(f"msrvtt_data/{name}", json.dumps([name]))
    site.serve("/ArrowLuo/CLIP4Clip/releases/download/v0.0/msrvtt_data.zip", packed.getvalue())
    assert run("msrvtt") == 0
    for name in MSRVTT:
        assert json.loads((tmp_path / "data/msrvtt" / name).read_text()) == [name]

    # The archive may be removed. Its members are still compared.
    (tmp_path / "data/msrvtt/msrvtt_data.zip").unlink()
    assert run("msrvtt") == 0
    assert len(site.requests) == 1
    (tmp_path / "data/msrvtt" / MSRVTT[0]).write_text("[]")
    assert run("msrvtt") == 2
    assert "MSRVTT_data.json: has changed since" in capsys.readouterr().err


def test_files_without_address_are_explained_and_then_accepted(
    run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("norton") == 2
    message = capsys.readouterr().err
    target = tmp_path / "runs/retri/norton/checkpoint_best.pt"
    assert "drive.google.com" in message
    assert f"Put it at {target}." in message
    target.parent.mkdir(parents=True)
    target.write_text("<!DOCTYPE html><html>Google Drive: quota exceeded</html>")
    assert run("norton") == 2
    assert "must be a torch file, but is a web page" in capsys.readouterr().err
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    assert run("norton") == 0
    assert run("how2-features") == 2


def test_a_killed_run_continues(site: Site, run: Callable, start: Callable, tmp_path: Path) -> None:
    stalls = server.stalls(PIECE + 100)
    site.serve(COIN_PATH, COIN, stalls, stalls, server.honest)
    for count, how in enumerate((signal.SIGKILL, signal.SIGINT)):
        process = start()
        wait_for_bytes(tmp_path / "data/coin", (count + 1) * PIECE)
        assert run("coin") == 2  # another process is downloading it
        process.send_signal(how)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "data/coin/COIN.json").exists()
    assert run("coin") == 0
    assert site.ranges(COIN_PATH) == [None, f"bytes={PIECE}-", f"bytes={2 * PIECE}-"]
    assert (tmp_path / "data/coin/COIN.json").read_bytes() == COIN


def test_a_full_disk_is_one_error(
    site: Site, run: Callable, start: Callable, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk."""
    site.serve(COIN_PATH, COIN)
    limits = (20_000, resource.RLIM_INFINITY)
    process = start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert re.search(r"^error: coin: .*COIN\.json: .* File too large", errors, re.MULTILINE)
    assert run("coin") == 0
    assert (tmp_path / "data/coin/COIN.json").read_bytes() == COIN


def test_a_model_folder_comes_from_the_hub(
    site: Site, run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = CATALOGUE["bert"].folder
    assert source is not None
    folder = tmp_path / source.target
    *names, last = source.files
    for name in names:
        site.serve(f"/{source.repo}/resolve/main/{name}", b'{"a": 1}', server.hub_file)
    assert run("bert") == 2
    assert f"{last} cannot be downloaded from the Hugging Face hub" in capsys.readouterr().err
    assert not folder.exists()

    site.serve(f"/{source.repo}/resolve/main/{last}", b"weights", server.hub_file)
    assert run("bert") == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(source.files)
    count = len(site.requests)
    assert run("bert") == 0
    assert len(site.requests) == count
    (folder / "vocab.txt").write_text("other")
    assert run("bert") == 2
    assert "vocab.txt: has changed" in capsys.readouterr().err
    assert run("bert", "--force") == 0
    (folder / "vocab.txt").unlink()
    assert run("bert") == 2
    assert "lacks vocab.txt" in capsys.readouterr().err


# -- the command line and the catalogue
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["s3e"], r"s3e: not known\. There is: bert, videoclip"),
        (["coin", "--mirror", "ftp://host"], "`--mirror` must be an address such as https://"),
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
    assert main(arguments) == 2


def test_the_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out == list_catalogue() + "\n"
    for name, item in CATALOGUE.items():
        assert re.search(rf"^{name} ", list_catalogue(), re.MULTILINE)
        assert item.source
        assert item.files or item.folder or item.by_hand
        for file in item.files:
            assert file.urls or item.by_hand
            assert all(url in list_catalogue() for url in file.urls)
            assert all(urlsplit(url).scheme in ("http", "https") for url in file.urls)


def test_downloads_lie_where_the_yamls_look() -> None:
    places = {file.target for item in CATALOGUE.values() for file in item.files}
    settings = yaml.safe_load((ROOT / "projects/retri/norton/how2_pretrain.yaml").read_text())
    dataset = settings["dataset"]
    assert {dataset["train_path"], dataset["val_path"]} <= places
    assert settings["fairseq"]["checkpoint"]["restore_file"] in places
    assert CATALOGUE["bert"].folder is not None
    assert CATALOGUE["bert"].folder.target == dataset["bert_name"]
    captions = Path(dataset["tfeat_dir"]).name.split(".")[0]
    assert f"data/how2/{captions}.json" in places
