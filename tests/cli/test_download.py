"""Tests of the download command with a local server: paths, exit codes, and killed runs."""

import hashlib
import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mmpt.cli.download import main
from mmpt.prepare.download.catalogue import CATALOGUE
from tests.support import misbehaving_server as server
from tests.support.misbehaving_server import Site
from tests.support.paths import ROOT
from tests.support.recipe_data import zipped

COIN_PATH = "/coin-dataset/annotations/master/COIN.json"
COIN = b'{"database": "' + random.Random(0).randbytes(12 * 2**20).hex().encode() + b'"}'
PIECE = 10 * 2**20  # bytes that the library writes at once


@pytest.fixture
def site() -> Iterator[Site]:
    with server.running_site() as running:
        yield running


@pytest.fixture
def run(site: Site, tmp_path: Path) -> Callable[..., int]:
    """Returns a function that runs the command in this process, with `tmp_path` as the root."""
    return lambda *words: main([*words, "--root", str(tmp_path), "--mirror", site.url])


@pytest.fixture
def start(site: Site, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Returns a function that starts the command in another process."""
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


def test_one_failure_does_not_stop_the_other_downloads(
    site: Site, run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.serve(COIN_PATH, COIN)
    assert run("videoclip", "coin") == 2
    words = r"^error: videoclip: .*checkpoint_best\.pt: cannot be downloaded\. .*404"
    assert re.search(words, capsys.readouterr().err, re.MULTILINE)
    assert (tmp_path / "data/coin/COIN.json").read_bytes() == COIN
    record = json.loads((tmp_path / "downloads.json").read_text())["files"][
        "data/coin/COIN.json"
    ]
    assert record["sha256"] == hashlib.sha256(COIN).hexdigest()
    assert record["url"] == site.url + COIN_PATH


def test_an_archive_may_be_removed_after_it_is_unpacked(
    site: Site, run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = CATALOGUE["msrvtt"].files
    packed = zipped(
        {f"msrvtt_data/{name}": json.dumps([name]).encode() for name in file.members}
    )
    site.serve(urlsplit(file.urls[0]).path, packed)
    assert run("msrvtt") == 0
    for name, place in file.members.items():
        assert json.loads((tmp_path / place).read_text()) == [name]
    (tmp_path / file.target).unlink()
    assert run("msrvtt") == 0
    assert len(site.requests) == 1
    (tmp_path / "data/msrvtt/MSRVTT_data.json").write_text("[]")
    assert run("msrvtt") == 2
    assert "MSRVTT_data.json: has changed since" in capsys.readouterr().err


def test_files_without_an_address_are_accepted_once_the_user_adds_them(
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
    assert "must be a .pt file, but is a web page" in capsys.readouterr().err
    target.write_bytes(zipped({"archive/data.pkl": b"x"}))
    assert run("norton") == 0
    assert run("how2-features") == 2


@pytest.mark.spawn
def test_a_killed_run_continues(
    site: Site, run: Callable, start: Callable, tmp_path: Path
) -> None:
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


def test_a_full_disk_is_one_error(site: Site, start: Callable) -> None:
    """The disk is simulated by a limit on the size of files."""
    site.serve(COIN_PATH, COIN)
    limits = (20_000, resource.RLIM_INFINITY)
    process = start(
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert re.search(
        r"^error: coin: .*COIN\.json: .* File too large", errors, re.MULTILINE
    )


# -- the command line and the catalogue
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["s3e"], r"unknown items: s3e\. Known: bert, videoclip"),
        (
            ["coin", "--mirror", "ftp://host"],
            "`--mirror` must be an address such as https://",
        ),
        (["coin", "--mirror", "host:8000"], "`--mirror` must be"),
        ([], "name something to download"),
    ],
)
def test_mistakes_give_one_message(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--root", str(tmp_path)]) == 2
    assert re.match(f"error: {words}", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_the_list_contains_all_items_and_addresses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    for name, item in CATALOGUE.items():
        assert re.search(rf"^{name} ", shown, re.MULTILINE)
        assert item.files or item.by_hand
        for file in item.files:
            assert file.urls or item.by_hand
            assert all(text in shown for text in file.urls)
            assert all(re.match("https?://", url) for url in file.urls)
