"""Tests of looking up the classes that a config names: classes of the project, a user's own, and
unknown names, which are reported all at once.
"""

from __future__ import annotations

import pytest
from torch import nn

from mmpt.batch import Split
from mmpt.config import DatasetConfig, LossConfig, ModelConfig, RunConfig, load_config
from mmpt.errors import ConfigError
from mmpt.losses import MMContraLoss
from mmpt.tasks import Task, VideoRetriTask

DATASET = DatasetConfig(
    meta_processor="ShardedHow2MetaProcessor",
    video_processor="ShardedVideoProcessor",
    text_processor="ShardedTextProcessor",
    aligner="VariedLenAligner",
)
CONFIG = RunConfig(
    path="a.yaml",
    dataset=DATASET,
    model=ModelConfig(model_cls="MMFusionSeparate"),
    loss=LossConfig(loss_cls="BCE"),
)


class OwnTask(Task):
    """A user's own."""


class OwnLoss(MMContraLoss):
    """A user's own."""


class OwnModel(nn.Module):
    """A user's own, of torch alone."""

    @classmethod
    def from_config(
        cls, dataset: DatasetConfig, model: ModelConfig, *, pretrained: bool
    ) -> OwnModel:
        return cls()


def test_the_task_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(Task.from_config(CONFIG)) is Task
    planned = DATASET.replace(
        meta_processor="ShardedHow2VideoRetriMetaProcessor",
        video_processor="ShardedVideoRetriVideoProcessor",
        text_processor="ShardedVideoRetriTextProcessor",
        aligner="VideoRetriOverlappedAligner",
    )
    task = Task.from_config(
        CONFIG.replace(task="VideoRetriTask", dataset=planned), seed=5
    )
    assert isinstance(task, VideoRetriTask)
    assert task.seed == 5
    assert (
        type(Task.from_config(CONFIG.replace(task=f"{__name__}.OwnTask"))).__name__
        == "OwnTask"
    )


def test_unknown_names_and_foreign_classes_are_reported_together() -> None:
    wrong = CONFIG.replace(
        task="VideoRetriTsk",
        dataset=DATASET.replace(
            video_processor="Zzz",
            text_processor="no.such.module.Reader",
            aligner=f"{__name__}.OwnLoss",
        ),
        model=ModelConfig(model_cls="MMFusionSeperate"),
        loss=LossConfig(loss_cls="torch.nn.CrossEntropyLoss"),
    )
    with pytest.raises(ConfigError) as caught:
        Task.from_config(wrong)
    problems = caught.value.problems
    assert caught.value.source == "a.yaml"
    assert len(problems) == 6
    base = "must be a subclass of `mmpt"
    for key, hint in {
        "task": "Did you mean `VideoRetriTask`?",
        "dataset.video_processor": "no video processor is called `Zzz`. Known: ",
        "dataset.text_processor": "cannot import the text processor `no.such.module.Reader`",
        "dataset.aligner": f"{__name__}.OwnLoss` {base}.processors.base.ItemAligner`, but is not.",
        "model.model_cls": "Did you mean `MMFusionSeparate`?",
        "loss.loss_cls": f"the loss `torch.nn.CrossEntropyLoss` {base}.losses.base.Loss`, but",
    }.items():
        (problem,) = (problem for problem in problems if f"`{key}`" in problem)
        assert hint in problem


def test_a_model_may_be_any_torch_module_that_is_made_from_a_config() -> None:
    task = Task.from_config(
        CONFIG.replace(model=ModelConfig(model_cls=f"{__name__}.OwnModel"))
    )
    assert type(task.build_model(pretrained=False)).__name__ == "OwnModel"
    with pytest.raises(
        ConfigError,
        match=r"`model\.model_cls: torch\.nn\.Linear` must have .* `from_config`",
    ):
        Task.from_config(CONFIG.replace(model=ModelConfig(model_cls="torch.nn.Linear")))


def test_a_loss_of_ones_own_is_built_from_the_section() -> None:
    config = CONFIG.replace(loss=OwnLoss.Config(loss_cls=f"{__name__}.OwnLoss"))
    loss = Task.from_config(config).build_loss()
    assert type(loss).__name__ == "OwnLoss"
    assert loss.config is config.loss


NORTON = load_config("projects/retri/norton/how2_pretrain.yaml").loss
BACKGROUND = "MMFusionSeparateFullVideoBGRetrieval"


@pytest.mark.parametrize(
    ("model", "loss", "words"),
    [
        (
            "MMFusionSeparateActionSegmentation",
            LossConfig(loss_cls="T2VContraLoss"),
            "needs pooled_video, pooled_text, but .* returns logits",
        ),
        (
            "MMFusionSeparate",
            LossConfig(loss_cls="CrossEntropy"),
            "needs logits, but .*MMFusionSeparate` returns pooled_video",
        ),
        # Only the video-paragraph term needs more than pooled states.
        (
            BACKGROUND,
            NORTON,
            "needs video_outputs, .* but .* returns pooled_video, pooled_text",
        ),
        (BACKGROUND, MMContraLoss.Config(loss_cls="MMContraLoss"), None),
    ],
)
def test_a_loss_must_fit_the_model(
    model: str, loss: LossConfig, words: str | None
) -> None:
    task = Task.from_config(
        CONFIG.replace(model=ModelConfig(model_cls=model), loss=loss)
    )
    if words is None:
        assert task.build_loss().config is loss
        return
    with pytest.raises(ConfigError, match=words):
        task.build_loss()


def test_a_split_without_a_source_has_no_data_set() -> None:
    task = Task.from_config(CONFIG)
    assert [task.build_dataset(split) for split in Split] == [None, None, None]


def test_whole_videos_come_one_at_a_time() -> None:
    config = CONFIG.replace(dataset=DATASET.replace(aligner="CrossTaskAligner"))
    with pytest.raises(
        ConfigError,
        match=r"`fairseq\.dataset\.batch_size` must be 1 with .*CrossTaskAligner.* is 2\.",
    ):
        Task.from_config(config.with_option("dataset", "batch_size", 2))
