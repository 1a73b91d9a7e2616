"""The Space: its settings agree with the project, and it makes an index and serves it."""

import importlib.util
import json
import tomllib
from types import ModuleType

import numpy as np
import pytest
import yaml

from mmpt.inference.index_folder import IndexFolder
from tests.support.paths import ROOT
from tests.support.tiny_run import make_run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def space() -> ModuleType:
    spec = importlib.util.spec_from_file_location("space", ROOT / "spaces/app.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def served(space, monkeypatch, tmp_path) -> list[list[str]]:
    """Records the command lines of `mmpt app`, which is not started."""
    calls: list[list[str]] = []
    monkeypatch.setattr(space.app, "main", calls.append)
    monkeypatch.setattr(space, "gettempdir", lambda: str(tmp_path / "temp"))
    monkeypatch.setenv("MMPT_MODEL", str(make_run(tmp_path / "run")))
    return calls


def test_the_index_is_built_at_startup_or_used_as_it_is(
    space, served, tmp_path, monkeypatch, caplog
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "two.mp4").touch()
    rows = np.random.default_rng(0).standard_normal((20, 512)).astype(np.float16)
    np.save(data / "one.npy", rows)
    (data / "broken.npy").write_bytes(b"")
    monkeypatch.setenv("MMPT_DATASET", str(data))
    space.main()
    folder, *options = served[0]
    assert IndexFolder(folder).read_settings().num_videos == 1
    assert options[options.index("--videos") + 1] == str(data)
    assert "1 of 1 videos are left out, because they have no features" in caplog.text
    assert options[-4:] == ["--host", "0.0.0.0", "--port", "7860"]
    # A dataset that is an index is served as it is.
    monkeypatch.setenv("MMPT_DATASET", folder)
    space.main()
    assert served[1][0] == folder


def test_videos_without_features_are_counted(space, tmp_path, caplog) -> None:
    for name in ("a.mp4", "b.mp4", "deep/c.mp4", "deep/d.webm", "._a.mp4", "a.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c.npy").touch()  # `mmpt extract` leaves the folder out
    space.report_missing_features(tmp_path)
    (message,) = caplog.messages
    assert message.startswith("2 of 4 videos are left out, because")
    assert message.endswith("such as b.mp4")


@pytest.mark.parametrize(
    ("trained", "named", "needs_s3d"),
    [
        ("s3d", None, True),
        (None, None, True),
        ("hf:owner/clip", None, False),
        ("hf:owner/clip", "s3d", True),
        # `mmpt index` refuses this encoder unless it is named.
        ("my_module.MyEncoder", None, False),
        ("my_module.MyEncoder", "my_module.MyEncoder", False),
    ],
)
def test_s3d_is_downloaded_only_if_it_encodes_the_videos(
    space, served, monkeypatch, tmp_path, trained, named, needs_s3d
) -> None:
    info = {"width": 512, "encoder": trained, "revision": "0" * 40}
    (tmp_path / "run" / "run.json").write_text(json.dumps({"features": info}))
    monkeypatch.setenv("MMPT_DATASET", str(tmp_path))
    monkeypatch.setenv("MMPT_ENCODER", named or "")
    monkeypatch.chdir(tmp_path)  # it has no `pretrained_models/`
    downloads: list[list[str]] = []
    monkeypatch.setattr(space.download, "main", downloads.append)
    indexed: list[list[str]] = []
    monkeypatch.setattr(space.index, "main", indexed.append)
    space.main()
    assert downloads == [["s3d"]] * needs_s3d
    for calls in (indexed, served):
        (words,) = calls
        given = words[words.index("--encoder") + 1] if "--encoder" in words else None
        assert given == named


def test_a_missing_model_is_an_error(space, served, monkeypatch) -> None:
    monkeypatch.delenv("MMPT_MODEL")
    with pytest.raises(SystemExit, match="error: set the variable MMPT_MODEL"):
        space.main()
    assert served == []


def test_a_failed_command_ends_the_space(space, served, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MMPT_DATASET", str(tmp_path / "run"))
    monkeypatch.setattr(space.download, "main", lambda _: 2)
    with pytest.raises(SystemExit) as end:
        space.main()
    assert end.value.code == 2


def test_the_header_names_the_pinned_gradio() -> None:
    _, header, _ = (ROOT / "spaces/README.md").read_text().split("---\n", 2)
    settings = yaml.safe_load(header)
    pins = (ROOT / "requirements.txt").read_text()
    assert f"\ngradio=={settings['sdk_version']} " in pins
    assert settings["sdk"] == "gradio"
    assert (ROOT / "spaces" / settings["app_file"]).is_file()
    assert f"Python :: {settings['python_version']}" in str(PROJECT["classifiers"])
    assert len(settings["short_description"]) <= 60  # the limit of the hub


def test_the_requirements_equal_the_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    needs = {*PROJECT["dependencies"], *extras["prepare"], *extras["report"]}
    needs |= set(extras["app"])
    expected = {need for need in needs if not need.startswith(("mmpt[", "gradio"))}
    lines = (ROOT / "spaces/requirements.txt").read_text().splitlines()
    assert {line for line in lines if line[0] not in "#-"} == expected
