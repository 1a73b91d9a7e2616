"""The arms of all experiments are valid, and arms with equal settings share a run."""

import logging

import pytest

from experiments import command, noise
from experiments.__main__ import EXPERIMENTS
from experiments.arms import (
    NORTON,
    PLAIN_LOSS,
    START,
    Arm,
    Experiment,
    Run,
    override_args,
    plain_and_norton,
)
from experiments.command import estimated_seconds, runs_of
from experiments.corpora import HALF_ALIGNED, HOWTO100M
from experiments.runner import training_command
from mmpt.config import load_config
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(logging.getLogger("mmpt.config.loader"), "disabled", True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", EXPERIMENTS, ids=lambda experiment: experiment.name
)
def test_every_training_command_has_a_valid_config(experiment: Experiment) -> None:
    runs = runs_of(experiment, [3], None, all_arms=True)
    # Runs of one arm on other corpora differ in the paths of the data only.
    arms = {(run.arm.yaml, str(run.arm.overrides)): run for run in runs}
    for run in arms.values():
        command = training_command(run)
        yaml, words = command[3], command[6:]
        config = load_config(yaml, words)
        assert config.option("common", "seed") == 4
        assert config.save_dir.endswith(run.key)
        assert 40 < estimated_seconds(run) < 1800


@pytest.mark.parametrize(
    "experiment", EXPERIMENTS, ids=lambda experiment: experiment.name
)
def test_a_first_pass_includes_all_arms_that_it_compares(
    experiment: Experiment,
) -> None:
    for corpus in experiment.corpora:
        names = {arm.name for arm in experiment.first_arms(corpus)}
        assert {arm.against for arm in experiment.first_arms(corpus)} <= {*names, ""}
        every = [run.arm.name for run in runs_of(experiment, [0], None, all_arms=True)]
        for beginning in experiment.later:
            assert any(name.startswith(beginning) for name in every), beginning


def test_names_and_corpora_have_no_effect_on_the_identity_of_a_run() -> None:
    one = Run.of(Arm("one", "One", {"num_cands": 24, "nprobe": 1}), HALF_ALIGNED, 0)
    same = Run.of(Arm("two", "Two", {"nprobe": 1, "num_cands": 24}), HALF_ALIGNED, 0)
    renamed = Run.of(same.arm, HALF_ALIGNED.with_options("other name"), 0)
    assert one.key == same.key == renamed.key


def test_each_setting_changes_the_identity_of_a_run() -> None:
    arm = Arm("one", "One", {"nprobe": 1})
    runs = [
        Run.of(arm, HALF_ALIGNED, 0),
        Run.of(arm, HALF_ALIGNED, 1),
        Run.of(arm, HOWTO100M, 0),
        Run.of(arm, HALF_ALIGNED.with_options("demo", noise=0.5), 0),
        Run.of(Arm("one", "One", {"nprobe": 2}), HALF_ALIGNED, 0),
        Run.of(Arm("one", "One", {"nprobe": 1}, yaml=START.yaml), HALF_ALIGNED, 0),
    ]
    assert len({run.key for run in runs}) == len(runs)
    # Seeds 0 and 1 are one arm.
    assert len({run.arm_key for run in runs}) == len(runs) - 1


def test_norton_starts_from_videoclip_on_the_same_corpus_and_seed() -> None:
    run = Run.of(Arm("one", "One", yaml=NORTON), HOWTO100M, 2)
    assert run.start == Run(START, HOWTO100M, 2)
    assert run.start.start is None


def test_plain_and_norton_differ_only_in_the_loss() -> None:
    plain, norton = plain_and_norton("one", {"nprobe": 1}, corpus=HOWTO100M, level=2)
    assert norton.overrides == {"nprobe": 1}
    assert plain.overrides == {"nprobe": 1, **PLAIN_LOSS}
    assert plain.corpus == norton.corpus == HOWTO100M
    assert norton.against == plain.name
    assert (plain.level, norton.level) == (None, 2)


def test_overrides_are_written_as_yaml() -> None:
    overrides = {
        "loss.sequence_contrast": None,
        "a.lr": [0.001],
        "b": False,
        "c": "paper",
    }
    assert override_args(overrides) == [
        "loss.sequence_contrast=null",
        "a.lr=[0.001]",
        "b=false",
        'c="paper"',
    ]


def test_a_comparison_with_an_unknown_arm_is_an_error() -> None:
    arms = [Arm("one", "One", against="missing")]
    experiment = Experiment("name", "Question?", lambda corpus: arms, (HALF_ALIGNED,))
    with pytest.raises(AssertionError, match="missing"):
        experiment.arms(HALF_ALIGNED)


def test_a_misspelt_arm_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([noise.EXPERIMENT], "", ["--arms", "noise 1", "--plan"]) == 2
    assert (
        "--arms must be names of arms, but 'noise 1' is none."
        in capsys.readouterr().err
    )
