"""The benchmark of whole jobs, with commands that only print lines."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import job_commands
import results
import whole_job
from job_commands import PREDICT, SIZES, TRAINING_PHASES, Data, Job, Lines
from mmpt.batch import Split
from mmpt.config import load_config
from mmpt.errors import LaunchError
from mmpt.losses import MMContraLoss
from mmpt.tasks import Task
from mmpt.tasks.checks import check_parts
from tests.support.paths import ROOT

LOG = """launching fairseq-train job.yaml
2026-11-28 21:58:36 | INFO | fairseq_cli.train | {}
2026-11-28 21:58:37 | INFO | mmpt.tasks.retritask | refresh of epoch 1: 9 videos in 0.0 s: embed
2026-11-28 21:58:37 | INFO | fairseq_cli.train | Start iterating over samples
2026-11-28 21:58:37 | INFO | mmpt.tasks.fairseqmmtask | first update done
2026-11-28 21:58:38 | INFO | fairseq_cli.train | begin validation on "valid" subset
2026-11-28 21:58:38 | INFO | fairseq.checkpoint_utils | Preparing to save checkpoint
2026-11-28 21:58:38 | INFO | fairseq_cli.train | done training in 2.0 seconds
""".splitlines()


@pytest.fixture(scope="module")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The input files of the jobs, with the small corpus."""
    data = Data(
        tmp_path_factory.mktemp("jobs"), corpus, "small", num_videos=16, num_val=8
    )
    data.write_bert()
    return data


def test_a_phase_ends_when_its_line_is_printed() -> None:
    times = [1.0, 3.0, 6.5, 6.5, 7.0, 9.0, 10.0, 12.0]
    log = [line.replace("0.0 s", "2.5 s") for line in LOG]
    lines = [*zip(times, log, strict=True), (15.0, job_commands.ENDED)]
    taken = whole_job.measure(lines, TRAINING_PHASES)
    assert taken == {
        "checks": 1.0,
        "imports": 2.0,
        "data and model": 1.0,
        "refresh": 2.5,
        "first update": 0.5,
        "other updates": 2.0,
        "validation": 1.0,
        "checkpoint": 2.0,
        "exit": 3.0,
        whole_job.WHOLE: 15.0,
    }
    with pytest.raises(LaunchError, match="which ends `validation`"):
        whole_job.measure(lines[:6] + lines[7:], TRAINING_PHASES)


def test_the_error_of_a_failed_command_has_its_last_lines() -> None:
    code = "print('no such file'); raise SystemExit(3)"
    with pytest.raises(LaunchError, match=r"exit code 3:\nno such file"):
        job_commands.run([sys.executable, "-c", code])


@pytest.mark.e2e
def test_both_sides_take_turns_and_are_recorded(
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started = []

    def run(job: Job, *more: str) -> Lines:
        started.append(("plain" if job.plain else "ours", *more))
        code = "import sys; print(*sys.argv[1:], sep='\\n')"
        return job_commands.run([sys.executable, "-c", code, *LOG])

    monkeypatch.setattr(Job, "run", run)
    args = argparse.Namespace(rounds=2, no_baseline=False, beside_busy=True)
    job = Job(data, "local_small", refresh=True)
    (figures,) = whole_job.compare([job], args)
    warm_up = ("ours", "fairseq.optimization.max_update=1")
    assert started == [warm_up, ("ours",), ("plain",), ("ours",), ("plain",)]
    assert all(len(figure.ours) == len(figure.plain) == 2 for figure in figures)
    names = [figure.what for figure in figures]
    assert "small, local_small, with refresh: launch to first update" in names
    results.record(figures, tmp_path / "out.jsonl")
    (recorded,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert [figure["what"] for figure in recorded["figures"]] == names
    capsys.readouterr()
    head, _, *rows = whole_job.summary(job, figures).splitlines()
    assert head.split()[-5:] == ["s", "share", "plain,", "s", "times"]
    for row, name in zip(rows, names, strict=True):
        assert row.split("  ")[0] == name.split(": ")[1]


@pytest.mark.parametrize("size", SIZES)
def test_the_yamls_of_both_sides_can_be_launched(
    data: Data, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    data = replace(data, size=size)
    data.write_bert()
    for_few_videos = ["dataset.num_video_per_batch=8"]
    for plain in (False, True):
        job = Job(data, "local_single", refresh=not plain, plain=plain)
        config = load_config(job.write_yaml(), for_few_videos)
        check_parts(Task.from_config(config))
        assert config.retrieval.retri_epoch == (None if plain else 1)
        scoring = load_config(replace(job, job_type=PREDICT).write_yaml())
        assert ("PaddedTowers" in str(scoring.model.model_cls)) == plain


@pytest.mark.slow
def test_the_plain_job_computes_the_same_loss(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    terms = []
    for plain in (False, True):
        config = load_config(
            Job(data, "local_single", refresh=True, plain=plain).write_yaml()
        )
        task = Task.from_config(config)
        torch.manual_seed(0)
        model, loss = task.build_model(pretrained=False).eval(), task.build_loss()
        dataset = task.build_dataset(Split.TRAIN)
        assert dataset is not None
        batch = dataset.collate([dataset[0]])
        with torch.no_grad():
            terms.append(loss(**{**batch, **model(**batch)}).terms)
        assert isinstance(loss, MMContraLoss) != plain
    ours, dense = terms
    assert ours.keys() == dense.keys()
    assert all(
        float(dense[name]) == pytest.approx(float(ours[name]), rel=1e-4)
        for name in ours
    )
