"""load_config: includes, overrides, and every kind of mistake, each against a message or value
written by hand.
"""

import copy

import pytest
import yaml

from mmpt.config import RunConfig, load_config, save_resolved
from mmpt.config.fairseq_args import fairseq_flags
from mmpt.config.loader import next_run_dir, with_run_dir
from mmpt.config.yaml_files import read_yaml
from mmpt.errors import ConfigError

TRAINING = {
    "dataset": {
        "meta_processor": "ShardedHow2VideoRetriMetaProcessor",
        "video_processor": "ShardedVideoRetriVideoProcessor",
        "text_processor": "ShardedVideoRetriTextProcessor",
        "aligner": "VideoRetriOverlappedAligner",
        "bert_name": "bert-base-uncased",
        "train_path": "data/train.lst",
        "max_video_len": 16,
        "max_len": 48,
        "num_video_per_batch": 8,
        "clip_per_video": 16,
    },
    "fairseq": {
        "common": {"tensorboard_logdir": "run", "fp16": True},
        "dataset": {"batch_size": 1},
        "optimization": {
            "lr": [1e-5],
            "optimizer": "adam",
            "ddp_backend": "no_c10d",
            "max_epoch": 6,
        },
        "checkpoint": {"save_dir": "runs/x"},
    },
    "model": {"model_cls": "MMFusionSeparate"},
    "loss": {"loss_cls": "MMContraLoss"},
    "retri_epoch": 1,
    "num_cands": 24,
}
TEST = {
    "dataset": {**TRAINING["dataset"], "split": "test"},
    "fairseq": {"common_eval": {"path": "a.pt"}, "dataset": {"batch_size": 4}},
    "model": {"model_cls": "MMFusionSeparate"},
    "eval": {"save_path": "runs/x/eval"},
    "metric": "RetrievalMetric",
    "predictor": "RetrievalPredictor",
}


def merge(base, changes):
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = merge(base[key], value) if both else value
    return base


@pytest.fixture
def load(tmp_path):
    """Write a mapping with some keys changed as YAML and load it: `load({"dataset": {"max_len":
    20}})`.
    """

    def write_and_load(changes=None, *overrides, base=TRAINING):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(merge(copy.deepcopy(base), changes or {})))
        return load_config(path, overrides)

    return write_and_load


def problems_of(load, changes=None, *overrides, base=TRAINING):
    with pytest.raises(ConfigError) as caught:
        load(changes, *overrides, base=base)
    return caught.value.problems


def test_values_and_defaults(load):
    config = load()
    assert isinstance(config, RunConfig)
    assert config.dataset.max_text_len == 32
    assert config.retrieval.num_cands == 24
    assert config.retrieval.infer_scale == 16
    assert config.retrieval.nprobe == "auto"
    assert (config.seed, config.max_epoch, config.save_dir, config.batch_size) == (
        1,
        6,
        "runs/x",
        1,
    )
    assert not config.is_test
    assert load(base=TEST).is_test
    assert load(base=TEST).metric == ("RetrievalMetric",)
    assert load({"metric": ["A", "B"]}, base=TEST).metric == ("A", "B")
    assert load(base=TEST).checkpoint_paths == ("a.pt",)
    assert load(
        {"fairseq": {"common_eval": {"path": ["a.pt", "b.pt"]}}}, base=TEST
    ).checkpoint_paths == (
        "a.pt",
        "b.pt",
    )


@pytest.mark.parametrize("text", ["1e-5", "1e-05", "1.0e-05", "0.00001", "'1e-05'", "['1e-5']"])
def test_a_learning_rate_may_be_written_in_any_way(load, text):
    assert load(None, f"fairseq.optimization.lr={text}").fairseq["optimization"]["lr"] == [1e-5]


def test_numbers_as_text_in_the_yaml_itself(tmp_path):
    text = yaml.safe_dump(TRAINING) + "centroids: '8'\n"
    (tmp_path / "a.yaml").write_text(
        text.replace("beta: 1\n", "").replace("loss_cls:", "beta: 3e-1\n  loss_cls:")
    )
    config = load_config(tmp_path / "a.yaml")
    assert config.loss.beta == 0.3
    assert config.retrieval.centroids == 8


def test_overrides_have_yaml_types_and_win(load):
    config = load(
        {"loss": {"sequence_contrast": {"threshold": 8, "sequence_contrast_weight": 0.1}}},
        "dataset.num_video_per_batch=4",
        "fairseq.common.fp16=false",
        "loss.sequence_contrast=null",
        "model.layernorm_only=true",
        "nprobe=3",
        "dataset.options.mine=[1,2]",
    )
    assert config.dataset.num_video_per_batch == 4
    assert config.fairseq["common"]["fp16"] is False
    assert config.loss.sequence_contrast is None
    assert config.model.layernorm_only is True
    assert config.retrieval.nprobe == 3
    assert config.dataset.options == {"mine": [1, 2]}


def test_retrieval_may_be_a_section(load):
    config = load(
        {"num_cands": 30, "retrieval": {"recall": 0.9, "nprobe": 2}},
        "retrieval.nprobe=3",
        "recall=0.8",
    )
    assert (config.retrieval.num_cands, config.retrieval.nprobe, config.retrieval.recall) == (
        30,
        3,
        0.8,
    )
    assert "retrieval" not in config.to_dict()
    assert load({"retrieval": None}).retrieval == load().retrieval


def test_interpolations_see_includes_and_overrides(load):
    config = load(
        {
            "eval": {"save_path": "${fairseq.checkpoint.save_dir}/eval"},
            "num_cands": "${dataset.clip_per_video}",
        },
        "fairseq.checkpoint.save_dir=runs/y",
        "dataset.sampled_max_len=${retri_epoch}",
    )
    assert config.eval.save_path == "runs/y/eval"
    assert (config.retrieval.num_cands, config.dataset.sampled_max_len) == (16, 1)
    assert problems_of(load, {"num_cands": "${dataset.clips}"}) == [
        "`num_cands` cannot be resolved: Interpolation key 'dataset.clips' not found."
    ]


def test_a_setting_stands_once(load):
    (problem,) = problems_of(load, {"nprobe": 2, "retrieval": {"nprobe": 3}})
    assert problem == "`nprobe` and `retrieval.nprobe` are one setting; remove either."
    (problem,) = problems_of(load, {"retrieval": {"nprobes": 3}})
    assert problem == "`nprobes` is not a known key. Did you mean `nprobe`?"


@pytest.mark.parametrize(
    "override", ["dataset.max_len", "=3", "dataset..max_len=3", "includes=x.yaml", "num_cands=[1"]
)
def test_broken_overrides(load, override):
    assert override in problems_of(load, None, override)[0]


def test_includes_cannot_be_overridden(load):
    assert problems_of(load, None, "includes=foo") == [
        "the override `includes=foo` comes too late: `includes` is read from files only."
    ]


def test_all_mistakes_at_once(load):
    changes = {
        "dataset": {"max_len": 16, "alinger": "X", "sampled_min_len": "many", "num_cands": 3},
        "fairseq": {
            "common": {"fp_16": True, "bf16": True},
            "optimizaton": {},
            "dataset": {"lr": [1]},
        },
        "model": {"model_cls": None, "num_hidden_video_layers": 0},
        "loss": 3,
        "db_type": "flat",
    }
    assert problems_of(load, changes) == [
        "`dataset.sampled_min_len` must be a whole number, but is 'many'.",
        "`dataset.alinger` is not a known key. Did you mean `aligner`?",
        "`dataset.num_cands` is not a known key; `num_cands` belongs at the top level.",
        "`model.num_hidden_video_layers` must be at least 1, but is 0.",
        "`loss` must be a mapping, but is 3.",
        "`db_type` must be `flatl2`, `innerproduct`, `pq` or `exact`, but is 'flat'.",
        "`fairseq.common.fp_16` is not a known key. Did you mean `fp16`?",
        "`fairseq.dataset.lr` is not a known key; `lr` belongs under `fairseq.optimization`.",
        "`fairseq.optimizaton` is not a known key. Did you mean `optimization`?",
        (
            "`model.model_cls` is missing; a training config needs it (evaluation configs say "
            "`dataset.split: test`)."
        ),
        "`dataset.max_len` must be at least `max_video_len` + 3 (19), but is 16; it counts the "
        "video slots, [CLS], [SEP], the word pieces and a final [SEP].",
        "`fairseq.common.fp16` and `fairseq.common.bf16` cannot both be true; choose one.",
    ]


WEIGHTED = {"sequence_contrast_weight": 0.1}


def fairseq(group, **options):
    return {"fairseq": {group: options}}


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        (
            {"dataset": {"max_len": 18}},
            "`dataset.max_len` must be at least `max_video_len` + 3 (19), but is 18",
        ),
        (
            {"dataset": {"sampled_min_len": 9, "sampled_max_len": 8}},
            "`dataset.sampled_min_len` must be at most",
        ),
        (
            {"dataset": {"sampled_video_min_len": 9, "sampled_video_max_len": 8}},
            "`dataset.sampled_video_min_len` must",
        ),
        (
            {"num_cands": 7},
            "`num_cands` must be at least `dataset.num_video_per_batch` (8), but is 7.",
        ),
        (
            {"loss": {"sequence_contrast": {**WEIGHTED, "threshold": 5}}},
            "`dataset.clip_per_video` must be a multiple",
        ),
        (
            {"loss": {"sequence_contrast": {"prompt_ratio": 0}}},
            "`loss.sequence_contrast.prompt_ratio` must be a",
        ),
        (
            {"loss": {"sequence_contrast": {"prompt_ratio": 1.5}}},
            "`loss.sequence_contrast.prompt_ratio` must be a",
        ),
        ({"loss": {"beta": -0.1}}, "`loss.beta` must be at least 0, but is -0.1"),
        (
            {"loss": {"masked_outer_sum": "page"}},
            "`loss.masked_outer_sum` must be `released` or `paper`",
        ),
        ({"nprobe": 0}, "`nprobe` must be at least 1 or `auto`, but is 0"),
        (
            {"memory": "16GB"},
            "`memory` is no longer a key: its work is done by `model.checkpoint_act",
        ),
        (
            {"model": {"tf32": False}},
            "`model.tf32` is no longer a key: float32 is computed in float32; ",
        ),
        (
            {"bank": "ram"},
            "`bank` is no longer a key: the vectors of all videos are kept in files; ",
        ),
        (
            {"retrieval": {"keep_centre": True}},
            "`keep_centre` is no longer a key: a batch is a sample",
        ),
        ({"resolved": True}, "`resolved` is no longer a key: leave it out"),
        ({"clips_per_forward": 0}, "`clips_per_forward` must be at least 1 or `auto`, but is 0."),
        (
            {"model": {"checkpoint_activations": True}},
            "`model.checkpoint_activations` must be `auto` or false or a wh",
        ),
        (
            {"model": {"checkpoint_activations": 0}},
            "`model.checkpoint_activations` must be `auto` or false or at ",
        ),
        ({"nprobe": "all"}, "`nprobe` must be a whole number or `auto`, but is 'all'"),
        ({"centroids": 8.5}, "`centroids` must be a whole number, but is 8.5"),
        ({"centroids": True}, "`centroids` must be a whole number, but is True"),
        ({"dataset": {"split": "dev"}}, "`dataset.split` must be `train`, `valid` or `test`"),
        (
            {"dataset": {"subsampling": 2}},
            "`fairseq.dataset.batch_size` must be at least `dataset.subsampling` (2)",
        ),
        (
            {"fairseq": {"checkpoint": {"save_dir": None}}},
            "`fairseq.checkpoint.save_dir` is missing",
        ),
        (
            {"fairseq": {"optimization": {"ddp_backend": "pytorch_ddp"}}},
            "`fairseq.optimization.ddp_backend` must be",
        ),
        (
            {"fairseq": {"distributed_training": {"ddp_backend": "c10d"}}},
            "`fairseq.distributed_training.ddp_backend`",
        ),
        (
            {"fairseq": {"optimization": {"lr": [1, 2]}}},
            "`fairseq.optimization.lr` must have a length of at most 1",
        ),
        (
            {"fairseq": {"distributed_training": {"distributed_world_size": 2}}},
            "`fairseq.distributed_training.distri",
        ),
        (
            {"fairseq": {"common_eval": {"path": "x"}}},
            "`fairseq.common_eval` belongs to evaluation configs",
        ),
        ({"dataset": 3}, "`dataset` must be a mapping, but is 3."),
        ({"dataset": 3, "task": "VideoRetriTask"}, "`dataset` must be a mapping, but is 3."),
        ({"fairseq": [1]}, "`fairseq` must be a mapping, but is [1]."),
        (
            {"num_cands": 10**22},
            "`num_cands` must be at most 2147483647 in size, but is 10000000000000000000000",
        ),
        (fairseq("common", seed=-5), "`fairseq.common.seed` must be at least 0, but is -5"),
        (fairseq("common", seed=2**32), "`fairseq.common.seed` must be at most 2147483647 in size"),
        (fairseq("common", log_interval=0), "`fairseq.common.log_interval` must be at least 1"),
        (
            fairseq("common", log_format="xml"),
            "`fairseq.common.log_format` must be `json`, `none`, `simple`",
        ),
        (
            fairseq("optimization", update_freq=[0]),
            "`fairseq.optimization.update_freq` must be a list, each at ",
        ),
        (
            fairseq("optimization", update_freq=[]),
            "`fairseq.optimization.update_freq` must have a length of at le",
        ),
        (
            fairseq("optimization", adam_betas=[0.9]),
            "`fairseq.optimization.adam_betas` must be two numbers",
        ),
        (
            fairseq("optimization", adam_betas="0.9; 1"),
            "`fairseq.optimization.adam_betas` must be two numbers",
        ),
        (
            fairseq("optimizer", adam_betas="(0.9, 1.0)"),
            "`fairseq.optimizer.adam_betas` must be two numbers",
        ),
        (fairseq("optimization", lr=[0]), "`fairseq.optimization.lr` must be a list, each above 0"),
        (
            fairseq("optimization", lr=[]),
            "`fairseq.optimization.lr` must have a length of at least 1",
        ),
        (
            fairseq("optimization", max_epoch=-1),
            "`fairseq.optimization.max_epoch` must be at least 0",
        ),
        (
            fairseq("optimization", clip_norm=-1),
            "`fairseq.optimization.clip_norm` must be at least 0",
        ),
        (
            fairseq("optimization", warmup_updates=-1),
            "`fairseq.optimization.warmup_updates` must be at least 0",
        ),
        (
            fairseq("optimization", optimizer="sgd"),
            "`fairseq.optimization.optimizer` must be `adam`, but is 'sgd'",
        ),
        (
            fairseq("optimization", lr_scheduler="cosine"),
            "`fairseq.optimization.lr_scheduler` must be `polynomial_dec",
        ),
        (
            fairseq("optimization", power=2),
            "`fairseq.optimization.power` needs `lr_scheduler: polynomial_decay`",
        ),
        (
            fairseq("optimization", lr_scheduler="polynomial_decay"),
            "`fairseq.optimization.total_num_update` is missing",
        ),
        (
            fairseq(
                "optimization",
                lr_scheduler="polynomial_decay",
                total_num_update=10,
                warmup_updates=11,
            ),
            (
                "`fairseq.optimization.warmup_updates` must be at most `total_num_update` (10), "
                "but is 11."
            ),
        ),
        (
            fairseq("checkpoint", best_checkpoint_metric="foo"),
            "`fairseq.checkpoint.best_checkpoint_metric` must be",
        ),
        (
            fairseq("checkpoint", finetune_from_model="a.pt"),
            "`fairseq.checkpoint.finetune_from_model` is not supp",
        ),
        (
            fairseq("dataset", valid_subset="test"),
            "`fairseq.dataset.valid_subset` must be `valid` in training, but is",
        ),
        (fairseq("dataset", batch_size=0), "`fairseq.dataset.batch_size` must be at least 1"),
        (
            fairseq("ema", store_ema=True),
            "`fairseq.ema` is not supported: there are no averaged weights",
        ),
        (
            {"layernorm_only": True},
            "`layernorm_only` is not a known key; `layernorm_only` belongs under `model`.",
        ),
        ({"datset": {}}, "`datset` is not a known key. Did you mean `dataset`?"),
        (
            {"loss": {"threshold": 3}},
            "`loss.threshold` is not a known key; `threshold` belongs under `loss.seq",
        ),
    ],
)
def test_each_mistake_alone(load, changes, start):
    (problem,) = problems_of(load, changes)
    assert problem.startswith(start)
    assert problem.endswith((".", "?"))


def test_fairseq_options_at_their_bounds(load):
    options = {
        "lr_scheduler": "polynomial_decay",
        "total_num_update": 10,
        "warmup_updates": 10,
        "adam_betas": [0, 0.9],
    }
    options |= {"max_epoch": 0, "clip_norm": 0, "update_freq": [1]}
    config = load(fairseq("optimization", **options), "fairseq.common.seed=0")
    assert config.fairseq["optimization"].items() >= options.items()
    assert config.seed == 0
    load(
        fairseq(
            "optimization", lr_scheduler="polynomial_decay", max_update=5, adam_betas="(0.9, 0.98)"
        )
    )


def test_config_errors_are_value_errors(load):
    with pytest.raises(
        ValueError, match=r"run\.yaml: 1 mistake\n  - `fairseq.checkpoint.save_dir` is missing"
    ):
        load({"fairseq": {"checkpoint": None}})


def test_what_an_evaluation_needs(load):
    (problem,) = problems_of(load, {"predictor": None}, base=TEST)
    assert (
        problem == "`predictor` is missing; an evaluation config (`dataset.split: test`) needs it."
    )


def test_old_keys_only_give_one_line(load, caplog):
    changes = {
        "dataset": {"lazy_vfeat_mask": True, "mlm_probability": 0.15},
        "slurm_config": "big",
        "run_task": ["a"],
    }
    changes |= {"retri_epoch": 2}  # without a retrieval task
    with caplog.at_level("INFO"):
        load(changes)
    (record,) = caplog.records
    assert record.levelname == "INFO"
    for key in (
        "slurm_config",
        "run_task",
        "retri_epoch",
        "dataset.lazy_vfeat_mask",
        "dataset.mlm_probability",
    ):
        assert key in record.getMessage()


def test_batch_size_is_divided_by_subsampling_and_a_saved_file_means_the_same(load, tmp_path):
    changes = {
        "dataset": {"subsampling": 32},
        "fairseq": {"dataset": {"batch_size": 256}},
        "metric": ["A"],
    }
    config = with_run_dir(
        load(changes, f"fairseq.checkpoint.save_dir={tmp_path}/s", "freeze_plan=true")
    )
    assert config.batch_size == 8  # 256 // 32, as VLM's released YAML gives
    flags = fairseq_flags(config)
    assert flags[flags.index("--batch-size") + 1] == "8"
    saved = tmp_path / "s" / "config.yaml"
    save_resolved(config, saved)
    assert yaml.safe_load(saved.read_text())["fairseq"]["dataset"]["batch_size"] == 256
    (tmp_path / "s" / "run_0").mkdir()
    again = with_run_dir(load_config(saved))
    assert again.fairseq["common"]["tensorboard_logdir"] == f"{tmp_path}/s/run_0"
    assert vars(again) == vars(config) | {"path": str(saved)}
    assert list(again.fairseq) == list(config.fairseq)  # the order of the command line


def test_the_distributed_pool_has_its_own_default(load):
    pool = {"vectorpool_cls": "DistributedVideoVectorPool"}
    assert load(pool).retrieval.centroids == 4096
    assert load({**pool, "centroids": 9}).retrieval.centroids == 9
    assert load().retrieval.centroids == 512


def test_includes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("includes: b.yaml\nx: {k: 1}\nz: [3]\nn:\n")
    (tmp_path / "b.yaml").write_text("x: {k: 0, m: 2}\nz: [1, 2]\nn: 4\n")
    assert read_yaml("a.yaml") == {"x": {"k": 1, "m": 2}, "z": [3], "n": None}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "a.yaml: 1 mistake\n  - no such file"),
        (
            {"a.yaml": "includes: b.yaml"},
            "a.yaml: 1 mistake\n  - `includes` names `b.yaml`: no such file",
        ),
        (
            {"a.yaml": "includes: b.yaml", "b.yaml": "includes: a.yaml"},
            "`includes` goes round in a circle: a.yaml -> b.yaml -> a.yaml.",
        ),
        (
            {"a.yaml": "includes: /"},
            "a.yaml: 1 mistake\n  - `includes` names `/`: cannot be read: Is a directory.",
        ),
        (
            {"a.yaml": "x: &x {y: *x}"},
            "a.yaml: 1 mistake\n  - not valid YAML: an anchor (`&`) holds itself",
        ),
        ({"a.yaml": "includes: [b.yaml]"}, "`includes` must be one path, but is ['b.yaml']."),
        ({"a.yaml": "- 1\n- 2\n"}, "must hold a mapping of keys, but holds a list."),
        ({"a.yaml": "x: [1\n"}, "not valid YAML"),
        ({"a.yaml": "x: 1\nx: 2\n"}, "duplicate key"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, monkeypatch, files, message):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config("a.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((), "run_0"),
        (("other_7",), "run_0"),
        (("run",), "run_1"),
        (("run", "run_3"), "run_4"),
        (("run_foo",), "run_0"),
        (("run_2", "run_foo", "run_10"), "run_11"),
    ],
)
def test_next_run_dir(tmp_path, entries, expected):
    for entry in entries:
        (tmp_path / entry).mkdir()
    assert next_run_dir(str(tmp_path), "run") == f"{tmp_path}/{expected}"
