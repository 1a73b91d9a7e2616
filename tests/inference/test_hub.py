"""Uploads to and downloads from a stand-in for the Hugging Face Hub. Failures give one error."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

from mmpt.errors import HubError
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.utils.io import file_hash, write_json
from tests.support.hub_server import TOKEN, Hub, environment, running_hub
from tests.support.paths import ROOT
from tests.support.tiny_run import make_run

TEXTS = ["cut the tomato", "heat the pan"]
NAME = "me/model"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("hub") / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> MMPTModel:
    return MMPTModel.from_pretrained(run)


def saved_files(model: MMPTModel, folder: Path) -> dict[str, bytes]:
    model.save_pretrained(folder, name=NAME)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_uploaded_model_is_loaded_unchanged(hub: Hub, model, tmp_path) -> None:
    address = model.push_to_hub(NAME)
    repo = hub.repos[NAME]
    assert address == f"{hub.url}/{NAME}/commit/{repo.head}"
    files = {name: repo.files[name] for name in repo.files if name != ".gitattributes"}
    assert files == saved_files(model, tmp_path / "saved")
    assert any(line.startswith("PUT /objects/") for line in hub.requests)

    loaded = MMPTModel.from_pretrained(NAME)
    assert torch.equal(loaded.encode_text(TEXTS), model.encode_text(TEXTS))


@pytest.mark.slow
def test_a_revision_can_be_loaded(hub: Hub, model, run) -> None:
    model.push_to_hub(NAME)
    first = hub.repos[NAME].head
    half = MMPTModel.from_pretrained(run, dtype=torch.float16)
    half.push_to_hub(NAME)
    assert MMPTModel.from_pretrained(NAME).dtype == torch.float16
    assert MMPTModel.from_pretrained(NAME, revision=first).dtype == torch.float32
    with pytest.raises(HubError, match=r"me/model \(v9\): .* no such revision"):
        MMPTModel.from_pretrained(NAME, revision="v9")


def test_a_downloaded_model_loads_without_a_network(
    hub: Hub, model, monkeypatch
) -> None:
    model.push_to_hub(NAME)
    expected = MMPTModel.from_pretrained(NAME).encode_text(TEXTS)
    num_requests = len(hub.requests)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    again = MMPTModel.from_pretrained(NAME)
    assert torch.equal(again.encode_text(TEXTS), expected)
    assert len(hub.requests) == num_requests


def test_only_the_files_of_a_model_are_downloaded(hub: Hub, model, tmp_path) -> None:
    extra = {"setup.py": b"1 / 0", "pytorch_model.bin": b"x", "other.safetensors": b"x"}
    hub.add(NAME, saved_files(model, tmp_path / "saved") | extra)
    MMPTModel.from_pretrained(NAME)
    fetched = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    assert fetched >= {"model.safetensors", "config.json", "README.md"}
    assert not fetched & set(extra)


def test_code_of_a_downloaded_model_is_not_run(hub: Hub, model, tmp_path) -> None:
    files = saved_files(model, tmp_path / "saved")
    config = json.loads(files["config.json"])
    config["mmpt"]["model"]["model_cls"] = "tests.support.tiny_run.make_run"
    hub.add(NAME, files | {"config.json": json.dumps(config).encode()})
    with pytest.raises(ValueError, match="code of its own"):
        MMPTModel.from_pretrained(NAME)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b'{"model_type": "bert"}'}, "no config.json with a section"),
        ({"config.json": b"3"}, "no config.json with a section"),
        ({"notes.txt": b"hello"}, "no config.json with a section"),
        (
            {"config.json": b'{"mmpt": {}}', "pytorch_model.bin": b"x"},
            "must have the file model.safetensors",
        ),
    ],
)
def test_other_repositories_are_refused(hub: Hub, files, message) -> None:
    hub.add(NAME, files | {"big.safetensors": b"x"})
    with pytest.raises(HubError, match=f"me/model: .*{message}"):
        MMPTModel.from_pretrained(NAME)
    assert not any("big.safetensors" in line for line in hub.requests)


def test_a_missing_or_private_repository_gives_one_error(hub: Hub, monkeypatch) -> None:
    hub.add("you/secret", {"config.json": b"{}"}, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for name in ("you/absent", "you/secret"):
        with pytest.raises(HubError, match=f"{name}: .* no such file.*hf auth login"):
            MMPTModel.from_pretrained(name)


def test_a_gated_repository_gives_one_error(hub: Hub) -> None:
    hub.add("you/gated", {"config.json": b"{}"}, gated=True)
    with pytest.raises(HubError, match="owner must allow you"):
        MMPTModel.from_pretrained("you/gated")


def test_an_unreachable_hub_gives_one_error(hub: Hub, model, monkeypatch) -> None:
    with socket.socket() as free:  # nothing listens here
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    with pytest.raises(HubError, match=r"cannot be reached.*hf download"):
        MMPTModel.from_pretrained(NAME)
    with pytest.raises(HubError, match=r"cannot be uploaded: .*cannot be reached"):
        model.push_to_hub(NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="cannot be reached"):
        MMPTModel.from_pretrained(NAME)


def test_an_upload_without_a_token_gives_one_error(
    hub: Hub, model, monkeypatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"no token.*hf auth login"):
        model.push_to_hub(NAME)
    assert hub.requests == []
    for token, name in (("hf_wrong", NAME), (TOKEN, "you/model")):
        with pytest.raises(HubError, match="token is not valid, or may not"):
            model.push_to_hub(name, token=token)
    assert hub.repos == {}


@pytest.mark.parametrize("name", ["model", "me/mo del", "a/b/c", "me/..", "/me"])
def test_an_invalid_name_gives_one_error(hub: Hub, model, name) -> None:
    with pytest.raises(HubError, match="name must be `user/name`"):
        model.push_to_hub(name)
    assert hub.requests == []


def test_a_failed_upload_does_not_change_the_repository(hub: Hub, model) -> None:
    hub.failures["/objects/"] = 403
    with pytest.raises(HubError, match="may not do this"):
        model.push_to_hub(NAME)
    assert set(hub.repos[NAME].files) == {".gitattributes"}


def test_a_private_model_is_not_uploaded_to_a_public_repository(
    hub: Hub, model
) -> None:
    model.push_to_hub("me/secret", private=True)
    assert hub.repos["me/secret"].private
    hub.add(NAME, {})
    with pytest.raises(HubError, match="public repository already"):
        model.push_to_hub(NAME, private=True)
    assert hub.repos[NAME].files == {}


def test_a_card_that_a_user_changed_is_kept_on_the_hub(hub: Hub, model, caplog) -> None:
    model.push_to_hub(NAME)
    repo = hub.repos[NAME]
    written = repo.files["README.md"]
    changed = written.replace(b"## Use", b"## My words")
    repo.commit({"README.md": changed, "model.safetensors": b"old"})
    model.push_to_hub(NAME)
    assert repo.files["README.md"] == changed
    assert "README.md of me/model is kept" in caplog.text
    assert repo.files["model.safetensors"] != b"old"
    model.push_to_hub(NAME, overwrite_card=True)
    assert repo.files["README.md"] == written


def test_a_card_that_cannot_be_read_is_not_replaced(hub: Hub, model) -> None:
    hub.add(NAME, {"README.md": b"My words.\n"})
    hub.failures["/resolve/"] = 403
    with pytest.raises(HubError, match="token is not valid, or may not do this"):
        model.push_to_hub(NAME)
    assert hub.repos[NAME].files == {"README.md": b"My words.\n"}


def test_the_example_of_the_guide_runs(hub: Hub, tmp_path) -> None:
    guide = (ROOT / "docs/guides/embed-and-search.md").read_text()
    (code,) = re.findall(
        r"^```python\n([^`]*push_to_hub[^`]*)```$", guide, re.MULTILINE
    )
    run = make_run(tmp_path / "runs/demo/norton")
    row = {
        "checkpoint": "checkpoint_best.pt",
        "fingerprint": file_hash(run / "checkpoint_best.pt"),
        "metrics": {"RetrievalMetric": {"R1": 0.25}},
    }
    results = tmp_path / "runs/demo/results/results.json"
    write_json(results, [row])
    exec(code)
    repo = hub.repos["me/norton-demo"]
    assert repo.private
    assert "| 25.0 |" in repo.files["README.md"].decode()


@pytest.mark.spawn
def test_the_command_and_python_use_the_variables_of_the_hub(run, tmp_path) -> None:
    """Upload and download in a process that gets only HF_ENDPOINT and the other variables."""
    with running_hub() as hub:
        env = os.environ | environment(hub, tmp_path / "cache")
        env["PYTHONPATH"] = str(ROOT)

        code = (
            "from mmpt.cli.main import main\n"
            "from mmpt.models import MMPTModel\n"
            f"assert main(['push', {str(run)!r}, {NAME!r}]) == 0\n"
            f"print(MMPTModel.from_pretrained({NAME!r}).encode_text('cut').shape)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        address, shape = done.stdout.splitlines()
        assert address == f"{hub.url}/{NAME}/commit/{hub.repos[NAME].head}"
        assert shape == "torch.Size([1, 64])"
