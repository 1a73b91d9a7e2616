"""The run of all GPU measurements: failures, interruptions, targets, and small runs of parts."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpu_day import gpu_tests, profiling, runner, targets
from gpu_day.part import FUNCTIONS, Report
from gpu_day.refresh import measure_search
from gpu_day.runner import PARTS, BenchmarkRun, Part
from tests.support.paths import ROOT

CODE = """
import json, os, pathlib, sys, time
part, values, out = sys.argv[1:4]
def save(errors=()):
    found = {"values": {part: 1}, "errors": dict.fromkeys(errors, "why")}
    pathlib.Path(values).write_text(json.dumps(found))
"""


def part(name: str, code: str, limit_s: float = 10) -> Part:
    """Returns a part that runs `code`."""
    return Part(name, limit_s, ("-c", CODE + code))


def new_run(folder: Path) -> BenchmarkRun:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return BenchmarkRun(folder / "out", work, rehearse=True)


@pytest.mark.slow
def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    parts = [
        part("crash", "print('no such kernel'); os.abort()"),
        part("hang", "save(); time.sleep(60)", limit_s=3),
        part("half", "save(['one variant'])"),
        part("good", "save()"),
    ]
    run = new_run(tmp_path)
    run.run(parts, seconds=60)
    saved = json.loads((tmp_path / "out" / "report.json").read_text())["parts"]
    assert list(saved) == ["crash", "hang", "half", "good"]
    assert saved["crash"]["error"] == "ended with exit code -6"
    assert "no such kernel" in saved["crash"]["log"]
    assert saved["hang"]["error"] == "stopped after 3 s"
    assert saved["hang"]["values"] == {"hang": 1}, "measured before the end"
    assert saved["half"]["error"] == "failed: one variant"
    assert (saved["good"]["error"], saved["good"]["values"]) == (None, {"good": 1})
    assert run.failed(parts) == ["crash", "hang", "half"]
    assert "== hang: stopped after" in run.summary()


def test_a_run_continues_with_unfinished_parts(tmp_path: Path) -> None:
    note = f"save(); open({str(tmp_path / 'runs')!r}, 'a').write(part + ' ')"
    good, bad, new = (
        part("good", note),
        part("bad", note + "; sys.exit(1)"),
        part("new", note),
    )
    new_run(tmp_path).run([good, bad], seconds=60)
    new_run(tmp_path).run([good, bad, new], seconds=60)
    assert (tmp_path / "runs").read_text().split() == ["good", "bad", "new", "bad"]


@pytest.mark.slow
def test_a_killed_run_keeps_finished_parts_and_ends_the_current_one(
    tmp_path: Path,
) -> None:
    program = f"""
from pathlib import Path
from tests.benchmarks.test_gpu_day import new_run, part
done = part("done", "save()")
pid = part("pid", "print(os.getpid(), flush=True); time.sleep(60)", 50)
new_run(Path({str(tmp_path)!r})).run([done, pid], 100)
"""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": paths}
    )
    log = tmp_path / "work" / "pid.log"
    end = time.monotonic() + 60
    while not (log.exists() and log.read_text().strip()):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.wait(10)
    pid = int(log.read_text())
    time.sleep(0.5)
    # A process that has ended may wait for the system to remove it.
    with suppress(psutil.NoSuchProcess):
        status = psutil.Process(pid).status()
        assert status == psutil.STATUS_ZOMBIE, "it would keep the GPU busy"
    report = new_run(tmp_path).report["parts"]
    assert list(report) == ["done"]
    assert report["done"]["error"] is None


def test_a_part_does_not_start_if_the_time_is_too_short(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.run([part("late", "save()")], seconds=1)
    assert run.parts == {}
    assert run.failed([part("late", "")]) == ["late"]


def test_a_rehearsal_is_not_continued_by_a_real_run(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.run([part("good", "save()")], seconds=60)
    with pytest.raises(
        SystemExit, match=r"was written with --rehearse; choose another"
    ):
        BenchmarkRun(tmp_path / "out", tmp_path, rehearse=False)


def test_all_parts_have_a_function_and_are_described_in_order() -> None:
    assert [each.name for each in PARTS] == list(FUNCTIONS)
    names = [
        line.split()[0]
        for line in (runner.HERE / "__main__.py").read_text().splitlines()
        if line.startswith("    ") and line.split()[0] in FUNCTIONS
    ]
    assert names[: len(PARTS)] == list(FUNCTIONS), "the description lists them in order"


def test_the_wheels_have_the_pinned_versions() -> None:
    pattern = r"([\w-]+)==([\w.]+)"
    pinned = {}
    for path in ("requirements.txt", "requirements-fairseq.txt"):
        for name, version in re.findall(pattern, (ROOT / path).read_text()):
            pinned[name.replace("_", "-")] = version
    listed = re.findall(pattern, (runner.HERE / "__main__.py").read_text())
    assert len(listed) > 15
    for name, version in listed:
        assert pinned[name] == version, name


def test_targets_are_compared_with_measured_values() -> None:
    values = {
        "step, ours bfloat16: ms": 50.0,
        "step, ours float16, compiled: ms": 39.0,
        "step, ours float16, chunks of 256: ms": 30.0,
        "step, ours float16, compiled, dropout 0.1: ms": 45.0,
        "step, ours float16, compiled: peak GB": 17.0,
        "step, ours float16, chunks of 256: peak GB": 4.0,
        "step, plain float16: ms": 195.0,
        "step, copy of a batch: ms": 5.0,
        "refresh, index: s": 0.0,
        "refresh, search: s": 4.0,
        "refresh, plan: s": 2.0,
        "embed: clips/s": 100_000,
    }
    found = targets.compare({"all": {"values": values}})
    step, ratio, peak, chunked, search, whole = found
    assert (step["value"], step["is_met"]) == (39, True)
    assert (ratio["value"], ratio["is_met"]) == (5, True)
    assert (peak["value"], peak["is_met"]) == (17, False)
    assert (chunked["value"], chunked["is_met"]) == (4, True)
    assert (search["value"], search["is_met"]) == (4, True)
    # 6 x (6 s + 192 s + 18,750 x 50 ms)
    assert whole["value"] == pytest.approx(6 * (198 + 937.5) / 3600)
    assert "NOT met" in targets.table(found)[2]
    empty = targets.compare({})
    assert [target["is_met"] for target in empty] == [None] * 6


def test_the_summary_of_a_trace_has_kernels_and_gaps() -> None:
    events: list[dict[str, Any]] = [
        {"cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 9000},
        {"cat": "kernel", "name": "gemm", "ts": 1000, "dur": 2000},
        {"cat": "kernel", "name": "gemm", "ts": 2500, "dur": 1500},  # overlaps
        {"cat": "kernel", "name": "norm", "ts": 6000, "dur": 1000},
        {"cat": "kernel", "name": "gemm", "ts": 7000, "dur": 1000},
        {"name": "a mark", "ts": 0},
    ]
    found = profiling.summary(events, ("kernel",), num_steps=2)
    assert found["ms of a step"] == 3.5
    assert found["ms of a step in gaps"] == 1
    assert found["kernels of a step"] == 2
    assert found["kernels, ms of a step, number"] == [
        ["gemm", 2.25, 1.5],
        ["norm", 0.5, 0.5],
    ]
    assert found["longest gaps, ms, next kernel"] == [[2, "norm"]]
    with pytest.raises(RuntimeError, match="no events of the categories kernel"):
        profiling.summary(events[:1], ("kernel",), num_steps=2)


def test_all_files_with_gpu_tests_are_found() -> None:
    found = gpu_tests.test_files()
    assert found[0] == "tests/e2e/test_gpu.py"
    assert {"tests/retrieval/test_retriever.py", "tests/models/test_memory.py"} < set(
        found
    )


def test_the_search_can_be_rehearsed(tmp_path: Path) -> None:
    report = Report(tmp_path / "values.json", tmp_path, rehearse=True)
    measure_search(report)
    saved = json.loads((tmp_path / "values.json").read_text())
    assert saved["errors"] == {}
    assert saved["values"]["refresh, search: s"] > 0
    assert saved["values"]["search on the device, second: s"] > 0


@pytest.mark.spawn
def test_the_step_can_be_rehearsed_with_the_command(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "benchmarks/gpu_day",
        "--rehearse",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "--parts", "step"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "targets: not compared in a rehearsal" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["targets"] == []
    values = report["parts"]["step"]["values"]
    assert values["step, ours bfloat16: ms"] > 0
    exact = values["step, ours float32: losses"]
    plain = values["step, plain float32: losses"]
    half = values["step, ours bfloat16: losses"]
    assert len(exact) == 10
    assert exact[-1] < exact[0]
    assert plain == pytest.approx(exact, rel=1e-3)
    assert half == pytest.approx(exact, rel=0.05)
