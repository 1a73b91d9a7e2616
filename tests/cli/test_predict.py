"""The scoring command on the small corpus: which checkpoints it takes, what it writes and what it
says.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt.cli import predict, scoring
from mmpt.config import EvalConfig, RunConfig
from mmpt.errors import ConfigError


def scoring_config(save_path: str, *named: str) -> RunConfig:
    return RunConfig(
        path="a.yaml",
        eval=EvalConfig(save_path=save_path),
        fairseq={"common_eval": {"path": [*named]}},
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with three checkpoints and one file of another kind, as the working
    directory.
    """
    for name in ("checkpoint_last.pt", "checkpoint2.pt", "checkpoint_best.pt", "other.pt"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_by_default_the_named_checkpoints_are_scored_in_their_order(run: Path) -> None:
    config = scoring_config("run/results", "run/other.pt", "run/checkpoint2.pt")
    assert scoring.checkpoints_to_score(config, False) == [
        Path("run/other.pt"),
        Path("run/checkpoint2.pt"),
    ]
    with pytest.raises(ConfigError, match=r"`fairseq.common_eval.path` must name"):
        scoring.checkpoints_to_score(scoring_config("run/results"), False)


@pytest.mark.parametrize("save_path", ["run/results", "run/"])
def test_all_checkpoints_are_those_in_dirname_of_the_results_then_the_named(
    run: Path, save_path: str
) -> None:
    config = scoring_config(save_path, str(run / "run" / "checkpoint_best.pt"), "run/other.pt")
    names = ["checkpoint2.pt", "checkpoint_best.pt", "checkpoint_last.pt", "other.pt"]
    assert scoring.checkpoints_to_score(config, True) == [Path("run") / name for name in names]
    rule = scoring.selection_rule(config)
    assert "every checkpoint*.pt in run " in rule
    assert "on this test set itself" in rule


def test_all_checkpoints_need_none_named(run: Path) -> None:
    assert len(scoring.checkpoints_to_score(scoring_config("run/results"), True)) == 3
    with pytest.raises(ConfigError):
        scoring.checkpoints_to_score(scoring_config("results"), True)


def test_short_names() -> None:
    assert scoring.short_names([Path("runs/a/c.pt"), Path("runs/b/c.pt")]) == ["a", "b"]
    assert scoring.short_names([Path("a/c1.pt"), Path("a/c2.pt")]) == ["c1", "c2"]
    paths = [Path("a/c1.pt"), Path("a/c2.pt"), Path("b/c2.pt")]
    assert scoring.short_names(paths) == [str(path) for path in paths]


def test_all_checkpoints_are_scored_and_the_best_is_named(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        str(scored),
        "--device",
        "cpu",
        "--all-checkpoints",
        "--markdown",
        "--save-predictions",
    ]
    assert predict.main(arguments) == 0
    said = capsys.readouterr().out.splitlines()
    run = scored.parent / "run"
    rows = json.loads((run / "results" / "results.json").read_text())
    assert [Path(row["checkpoint"]).name for row in rows] == ["checkpoint_a.pt", "checkpoint_b.pt"]
    constant, random = (row["metrics"]["RetrievalMetric"] for row in rows)
    assert said[0] == "|  | chance | checkpoint_a | checkpoint_b |"
    assert f"| {100 * constant['R1']:.1f} | {100 * random['R1']:.1f} |" in said[2]
    best, value = max((("a", constant["R1"]), ("b", random["R1"])), key=lambda pair: pair[1])
    assert said[-1] == f"best: {run}/checkpoint_{best}.pt (RetrievalMetric {value:.4f})"
    assert said[-2].startswith(f"scored: every checkpoint*.pt in {run} ")
    with np.load(run / "results" / "scores-run-checkpoint_a.npz") as arrays:
        # Measured 0: the same for every text.
        assert np.ptp(arrays["pooled_text"], axis=0).max() < 1e-5
        assert arrays["scores"].shape == (len(arrays["video_id"]),) * 2


def test_by_default_one_checkpoint_and_a_plain_table(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(scored), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].split() == ["chance", "run"]
    assert "best:" not in said
    assert len(json.loads((scored.parent / "run" / "results" / "results.json").read_text())) == 1


def test_a_mistake_is_one_message_and_exit_code_2(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scored.parent / "run" / "checkpoint_b.pt").unlink()
    assert predict.main([str(scored), "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {scored.parent}/run/checkpoint_b.pt: no such checkpoint.")


def test_ctrl_c(
    scored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "load_weights", interrupted)
    assert predict.main([str(scored), "--device", "cpu"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (scored.parent / "run" / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["projects/retri/norton/how2_demo.yaml"], "a training config cannot be scored"),
        (
            ["projects/retri/norton/test_how2_demo_zs.yaml", "--device", "foo"],
            "--device foo: not a device",
        ),
    ],
)
def test_mistakes_end_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_yaml_may_be_named_by_an_option_but_must_be_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for argv in (["none.yaml"], ["--taskconfig", "none.yaml"]):
        assert predict.main(argv) == 2
        assert "none.yaml" in capsys.readouterr().err
    assert predict.main([]) == 2
