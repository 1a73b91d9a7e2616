"""Services that get the metrics of a training run. Their files contain the logged values."""

import json
import math
import re
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from wandb.proto.wandb_internal_pb2 import Record

from mmpt.config import load_config
from mmpt.errors import ConfigError, LaunchError
from mmpt.utils import run_loggers
from mmpt.utils.run_loggers import RunLogger, RunMetadata, check_packages, open_loggers

SETTINGS = {"model": {"packed": True}, "git_commit": "1234abc"}
METRICS = {"loss": 2.5, "accuracy": 0.25, "gnorm": math.nan}


def facts(folder: Path, num_updates: int = 0) -> RunMetadata:
    save_dir = folder / "runs" / "mine"
    save_dir.mkdir(parents=True, exist_ok=True)
    return RunMetadata(save_dir, num_updates, SETTINGS)


def log_a_run(service: str, folder: Path) -> None:
    """Logs updates 1 to 3, and continues after update 2."""
    for num_updates, updates in ((0, (1, 2, 3)), (2, (3, 4))):
        (each,) = open_loggers([service], facts(folder, num_updates))
        for update in updates:
            each.append("train", 1, update, {**METRICS, "loss": 10.0 - update})
        each.append("valid", 1, updates[-1], METRICS)
        each.close()


def events(folder: Path) -> list[Event]:
    """Reads the event files of a folder: records of a length, 4 bytes, the event and 4 bytes."""
    found = []
    # The name of a file has the seconds of its creation.
    for path in sorted(folder.glob("events.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def points(folder: Path, name: str) -> set[tuple[int, float]]:
    """Returns the steps and values of a curve."""
    return {
        (event.step, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if value.tag == name
    }


def test_tensorboard_gets_finite_values_by_split_and_the_settings(
    tmp_path: Path,
) -> None:
    log_a_run("tensorboard", tmp_path)
    folder = tmp_path / "runs" / "mine" / "tensorboard"
    assert points(folder / "train", "loss") == {(1, 9), (2, 8), (3, 7), (4, 6)}
    assert points(folder / "valid", "loss") == {(3, 2.5), (4, 2.5)}
    assert points(folder / "train", "gnorm") == set()
    # TensorBoard hides the points from here on that were written before.
    starts = [
        event.step
        for event in events(folder / "train")
        if event.session_log.status == event.session_log.START
    ]
    assert starts == [3]
    content = str(events(folder / "train"))
    assert "runs/mine" in content
    assert "1234abc" in content


class Recorder:
    """A stand-in for wandb, trackio and aim, with the calls and attributes that are used."""

    def __init__(self, calls: list[Any]):
        self.calls = calls
        self.id = self.hash = "id1"
        self.dir, self.offline = "/offline", True

    def init(self, *args: Any, **settings: Any) -> "Recorder":
        self.calls.append(("init", *args, settings))
        return self

    Run = init

    def log(self, values: Any, **more: Any) -> None:
        self.calls.append(("log", values, more))

    def track(self, value: float, name: str, **more: Any) -> None:
        self.calls.append(("track", value, name, more))

    def __setitem__(self, name: str, value: Any) -> None:
        self.calls.append(("set", name, value))

    def define_metric(self, *args: Any, **more: Any) -> None:
        """Does nothing."""

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802
        return settings

    def finish(self) -> None:
        self.calls.append(("end",))

    close = teardown = finish


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records the calls of all services."""
    made: list[Any] = []
    for package in ("wandb", "trackio", "aim"):
        monkeypatch.setitem(sys.modules, package, Recorder(made))  # type: ignore[arg-type]
    for name in ("WANDB_PROJECT", "WANDB_NAME", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return made


def starts_of(calls: list[Any]) -> list[Any]:
    return [call for call in calls if call[0] == "init"]


def test_wandb_continues_the_run_with_the_id_of_the_folder(
    calls: list[Any], tmp_path: Path
) -> None:
    log_a_run("wandb", tmp_path)
    first, second = (call[1] for call in starts_of(calls))
    assert first["config"] == SETTINGS
    assert (first["project"], first["name"]) == ("mmpt", "runs/mine")
    assert (first["resume"], second["resume"]) == (None, "allow")
    assert second["id"] == "id1"
    values = {"train/loss": 9.0, "train/accuracy": 0.25, "epoch": 1, "update": 1}
    assert ("log", values, {}) in calls
    # A new run in the same folder gets another id.
    open_loggers(["wandb"], facts(tmp_path))
    ids = [call[1]["id"] for call in starts_of(calls)]
    assert len(set(ids)) == 3


def test_trackio_continues_the_run_with_the_same_name(
    calls: list[Any], tmp_path: Path
) -> None:
    log_a_run("trackio", tmp_path)
    first, second = (call[1] for call in starts_of(calls))
    assert second["name"] == first["name"]
    assert re.fullmatch(r"runs/mine [0-9a-f]{6}", first.pop("name"))
    assert first == {
        "project": "mmpt",
        "config": SETTINGS,
        "resume": "never",
        "auto_log_cpu": False,
        "auto_log_gpu": False,
    }
    assert second["resume"] == "allow"
    values = {"valid/loss": 2.5, "valid/accuracy": 0.25, "epoch": 1}
    assert ("log", values, {"step": 4}) in calls
    # The run of another folder, or a new run, must not be continued under this name.
    open_loggers(["trackio"], facts(tmp_path))
    names = [call[1].get("name") for call in starts_of(calls)]
    assert names[-1] not in names[:-1]


def test_aim_continues_the_run_with_the_id_of_the_folder(
    calls: list[Any], tmp_path: Path
) -> None:
    log_a_run("aim", tmp_path)
    assert [call[1] for call in starts_of(calls)] == [None, "id1"]
    assert ("set", "settings", SETTINGS) in calls
    context = {"subset": "train"}
    more = {"step": 1, "epoch": 1, "context": context}
    assert ("track", 9.0, "loss", more) in calls


def test_a_service_that_fails_gets_no_more_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(RunLogger):
        name = "broken"

        def _write(self, *args: Any) -> None:
            raise ConnectionError("no route")

        def _close(self) -> None:
            raise ConnectionError("still no route")

    broken = Broken(facts(tmp_path))
    for update in (1, 2):
        broken.append("train", 1, update, METRICS)
    broken.close()
    assert caplog.messages == [
        "broken failed and gets no more metrics: no route",
        "broken may lack the last metrics, as it failed: still no route",
    ]


def test_a_service_that_cannot_start_gives_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no API key")

    wandb = SimpleNamespace(init=refuse, Settings=dict)
    monkeypatch.setitem(sys.modules, "wandb", wandb)  # type: ignore[arg-type]
    with pytest.raises(LaunchError, match="`loggers`: wandb cannot start: no API key"):
        open_loggers(["wandb"], facts(tmp_path))


def test_the_error_for_a_missing_package_has_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_packages(["tensorboard"])
    monkeypatch.setattr(run_loggers, "find_spec", lambda name: None)
    for name, extra in (("tensorboard", "train"), ("aim", "aim")):
        with pytest.raises(LaunchError, match=rf"pip install 'mmpt\[{extra}\]'"):
            check_packages([name])


@pytest.mark.parametrize(
    ("value", "read"), [("wandb", ("wandb",)), ("[aim,trackio]", ("aim", "trackio"))]
)
def test_a_yaml_may_name_one_or_several_loggers(
    value: str, read: tuple[str, ...]
) -> None:
    yaml = "projects/retri/videoclip/how2_demo.yaml"
    config = load_config(yaml, [f"loggers={value}"])
    assert config.loggers == read
    assert "loggers" not in load_config(yaml).to_dict()
    with pytest.raises(ConfigError, match="`tensorboard`, `wandb`, `trackio`"):
        load_config(yaml, ["loggers=[comet]"])


# ---- the real packages


def log_of_wandb(path: Path) -> list[Record]:
    """Reads a `.wandb` file: 7 bytes, then records of a checksum, length, type and content.

    A file of more than 32 KiB would also have records in parts.
    """
    content = path.read_bytes()
    found, at = [], 7
    while at < len(content):
        _, length, _ = struct.unpack("<IHB", content[at : at + 7])
        at += 7 + length
        found.append(Record.FromString(content[at - length : at]))
    return found


@pytest.mark.slow
def test_the_real_wandb_writes_and_continues_offline(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    # wandb looks for this module, which transformers imports.
    name = "huggingface_hub.inference"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    log_a_run("wandb", tmp_path)
    folder = tmp_path / "runs" / "mine"
    logs = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        logs.append(log_of_wandb(path))
    runs = [record.run for log in logs for record in log if record.HasField("run")]
    known = json.loads((folder / "loggers.json").read_text())
    assert [run.run_id for run in runs] == [known["wandb"]] * 2
    assert {(run.project, run.display_name) for run in runs} == {("mmpt", "runs/mine")}
    assert "1234abc" in str(runs[0].config)

    curves = []
    for log in logs:
        curve = []
        for record in log:
            row = {}
            for item in record.history.item:
                (name,) = item.nested_key
                row[name] = json.loads(item.value_json)
            if "train/loss" in row:
                curve.append((row["update"], row["train/loss"]))
            assert "train/gnorm" not in row
        curves.append(curve)
    assert curves == [[(1, 9), (2, 8), (3, 7)], [(3, 7), (4, 6)]]
    assert capfd.readouterr() == ("", "")


def test_the_real_trackio_writes_and_continues(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The package reads the variable when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    log_a_run("trackio", tmp_path)
    (run,) = trackio.Api().runs("mmpt")
    assert run.name.startswith("runs/mine ")
    assert run.config["git_commit"] == "1234abc"
    rows = SQLiteStorage.get_logs("mmpt", run.name)
    curve = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    assert sorted(curve) == [(1, 9), (2, 8), (3, 7), (3, 7), (4, 6)]
    assert [row["step"] for row in rows if "valid/accuracy" in row] == [3, 4]
    # Otherwise it would be finished at the exit of the process, with a line on the screen.
    with pytest.raises(RuntimeError, match=r"trackio\.init"):
        trackio.finish()
    assert capfd.readouterr() == ("", "")


def test_the_real_aim_writes_and_continues(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    aim = pytest.importorskip(
        "aim", reason="aim has no build for this Python or system"
    )
    monkeypatch.chdir(tmp_path)
    log_a_run("aim", tmp_path)
    (name,) = (path.name for path in (tmp_path / ".aim" / "meta" / "chunks").iterdir())
    run = aim.Run(
        name,
        force_resume=True,
        system_tracking_interval=None,
        capture_terminal_logs=False,
    )
    assert run.name == "runs/mine"
    assert run["settings"]["git_commit"] == "1234abc"
    curves = {}
    for metric in run.metrics():
        curves[metric.name, metric.context["subset"]] = metric.values
    run.close()
    assert curves.keys() == {
        (name, split) for name in ("loss", "accuracy") for split in ("train", "valid")
    }


def test_a_continued_run_keeps_the_facts_about_its_features(tmp_path: Path) -> None:
    run = facts(tmp_path)
    features = {"encoder": "hf:a/clip", "width": 24}
    replace(run, features=features).write()
    path = run.save_dir / "run.json"
    assert json.loads(path.read_text())["features"] == features
    replace(run, num_updates=3).write()  # the folder of the features no longer exists
    assert json.loads(path.read_text())["features"] == features
    run.write()  # a new run in the same folder
    assert json.loads(path.read_text())["features"] is None
