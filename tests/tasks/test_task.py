"""Tests of looking up the classes that a config names: classes of the project, a user's own, and
unknown names, which are reported all at once. Tests of the checks before a training starts, and of
the parameters that are trained.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor
from transformers import BertConfig

from mmpt.batch import Split
from mmpt.config import DatasetConfig, LossConfig, ModelConfig, RunConfig, load_config
from mmpt.errors import ConfigError, DataError
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.tasks import Task, VideoRetriTask
from mmpt.tasks.task import check_parts, freeze_all_but_layernorm
from tests.support.jobs import VIDEOCLIP, corpus_overrides

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


def test_shards_that_are_not_there(corpus, tmp_path):
    (tmp_path / "feat").mkdir()
    overrides = [
        *corpus_overrides(corpus, tmp_path),
        f"dataset.vfeat_dir={tmp_path}/feat",
    ]
    with pytest.raises(
        DataError, match=r"neither train_meta\.json nor .* run `mmpt pack`"
    ):
        check_parts(load_config(VIDEOCLIP, overrides))


def test_sizes_of_the_model_are_checked_before_a_process_starts(corpus, tmp_path):
    config = load_config(
        VIDEOCLIP,
        [*corpus_overrides(corpus, tmp_path), "model.num_hidden_video_layers=9"],
    )
    with pytest.raises(
        ConfigError, match=r"must be at most the 2 layers of .*, but is 9"
    ):
        check_parts(config)


def test_the_model_is_not_built_before_a_process_starts(corpus, tmp_path, monkeypatch):
    def build_model(task, *, pretrained):
        raise AssertionError("this was not to be called")

    monkeypatch.setattr(Task, "build_model", build_model)
    check_parts(load_config(VIDEOCLIP, corpus_overrides(corpus, tmp_path)))


@pytest.mark.spawn
@pytest.mark.skipif(
    torch.cuda.is_available(), reason="a trial on a GPU is left to the processes"
)
@inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
def test_a_missing_compiler_is_found_before_a_process_starts(corpus, tmp_path):
    torch.compiler.reset()
    with pytest.raises(
        ConfigError, match=r"`model.compile: true` needs a C\+\+ compiler"
    ):
        check_parts(
            load_config(
                VIDEOCLIP, [*corpus_overrides(corpus, tmp_path), "model.compile=true"]
            )
        )


def test_norton_trains_78_tensors_of_59904_numbers():
    with torch.device("meta"):
        model = MMFusionSeparate(
            BertConfig(), num_hidden_video_layers=6, max_video_len=16
        )
    names = freeze_all_but_layernorm(model)
    parameters = dict(model.named_parameters())
    assert len(names) == 78
    assert sum(parameters[name].numel() for name in names) == 59_904
    assert names == [name for name, p in parameters.items() if p.requires_grad]


def test_the_name_decides_not_the_class():
    model = nn.ModuleDict(
        {
            "norm": nn.LayerNorm(2),
            "LayerNorm": nn.Linear(2, 2),
            "LayerNorm2": nn.LayerNorm(2),
        }
    )
    assert freeze_all_but_layernorm(model) == ["LayerNorm.weight", "LayerNorm.bias"]


def test_a_model_without_layernorm_is_a_user_error():
    with pytest.raises(ConfigError, match=r"layernorm_only.*\n.*named `LayerNorm`"):
        freeze_all_but_layernorm(nn.Linear(2, 2))
