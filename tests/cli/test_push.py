"""`mmpt push`: dry run, upload to a stand-in of the Hub, results in the card, and mistakes."""

import json
from pathlib import Path

import pytest
import torch

from mmpt.cli import push
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.utils.io import file_hash
from tests.support.hub_server import Hub
from tests.support.tiny_run import make_run

NAME = "me/model"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("push") / "run")
    row = {
        "checkpoint": "checkpoint_best.pt",
        "fingerprint": file_hash(run / "checkpoint_best.pt"),
        "task": "mine",
        "metrics": {"RetrievalMetric": {"R1": 0.25}},
    }
    (run / "results.json").write_text(json.dumps([row]))
    return run


def call(*arguments: object) -> int:
    return push.main([str(each) for each in arguments])


@pytest.mark.slow
def test_a_dry_run_writes_the_folder_and_prints_its_files(
    hub: Hub, run, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert call(run, NAME, "--dryrun") == 0
    assert hub.requests == []
    folder = tmp_path / "model"
    lines = capsys.readouterr().out.splitlines()
    printed = {Path(line.split()[-1]).name for line in lines}
    assert printed == {path.name for path in folder.iterdir()}
    assert {"README.md", "config.json", "model.safetensors"} <= printed
    card = (folder / "README.md").read_text()
    assert '.from_pretrained("me/model")' in card
    assert "| mine | clip, text to video, R@1 | 25.0 |" in card


@pytest.mark.slow
def test_the_folder_of_a_dry_run_is_uploaded_with_a_changed_card(
    hub: Hub, run, tmp_path, capsys
) -> None:
    assert call(run, NAME, "--dryrun", "--out", "folder") == 0
    card = tmp_path / "folder" / "README.md"
    card.write_text(card.read_text().replace("## Use", "My words.\n\n## Use"))
    (tmp_path / "folder" / "private.txt~").write_text("not for others")
    capsys.readouterr()
    assert call("folder", NAME, "--private") == 0
    repo = hub.repos[NAME]
    assert capsys.readouterr().out.strip().endswith(f"/me/model/commit/{repo.head}")
    assert repo.private
    assert repo.files["README.md"].decode() == card.read_text()
    weights = (tmp_path / "folder" / "model.safetensors").read_bytes()
    assert repo.files["model.safetensors"] == weights
    assert "private.txt~" not in repo.files
    expected = MMPTModel.from_pretrained(run).encode_text("cut")
    assert torch.equal(MMPTModel.from_pretrained(NAME).encode_text("cut"), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "folder"], "`--out` is the folder of `--dryrun`"),
        (["--results", "absent.json"], "absent.json: not a results file"),
        (["--checkpoint", "absent.pt"], "absent.pt"),
    ],
)
def test_a_mistake_gives_one_line(hub: Hub, run, arguments, message, capsys) -> None:
    assert call(run, NAME, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert hub.requests == []


def test_results_of_a_saved_folder_are_refused(hub: Hub, run, tmp_path, capsys) -> None:
    MMPTModel.from_pretrained(run).save_pretrained(tmp_path / "saved")
    assert call("saved", NAME, "--results", run / "results.json") == 2
    assert "results name the checkpoint" in capsys.readouterr().err


def test_the_token_is_checked_before_the_model_is_read(
    hub: Hub, capsys, monkeypatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert call("no_such_run", NAME) == 2
    assert "hf auth login" in capsys.readouterr().err
