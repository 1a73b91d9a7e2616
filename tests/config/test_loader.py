"""`load_config`: includes, overrides, and every kind of mistake.

Values and messages are compared with ones that were written by hand.
"""

import pytest
import yaml

from mmpt.config import RunConfig, load_config, save_resolved
from mmpt.config.loader import next_run_dir, with_run_dir
from mmpt.config.run import fairseq_flags, last_checkpoint
from mmpt.errors import ConfigError

TRAINING = "projects/retri/norton/how2_pretrain.yaml"
"""V = 64, C = 16, F + T = 48, sequences of 8 clips, 192 candidates, `polynomial_decay`."""
TEST = "projects/retri/norton/test_vtt_zs.yaml"


def load(*overrides, base=TRAINING):
    return load_config(base, overrides)


def problems_of(*overrides, base=TRAINING):
    with pytest.raises(ConfigError) as caught:
        load(*overrides, base=base)
    return caught.value.problems


def assert_only_problem(override, problem):
    """Asserts that an override is the only mistake, and that the message begins with `problem`."""
    (found,) = problems_of(override)
    key, _, _ = override.partition("=")
    assert found.startswith(f"`{key}` {problem}")
    assert found.endswith((".", "?"))


def test_values_and_defaults():
    config = load()
    assert isinstance(config, RunConfig)
    assert config.dataset.max_text_len == 32
    assert (config.retrieval.num_cands, config.retrieval.nprobe) == (192, "auto")
    assert config.save_dir == "runs/retri/norton/"
    assert (config.batch_size, config.is_test, config.checkpoint_paths) == (
        1,
        False,
        (),
    )
    test = load("metric=[A,B]", "fairseq.common_eval.path=[a.pt,b.pt]", base=TEST)
    assert test.is_test
    assert (test.metric, test.checkpoint_paths) == (("A", "B"), ("a.pt", "b.pt"))
    one = load("fairseq.common_eval.path=a.pt", base=TEST)
    assert (one.metric, one.checkpoint_paths) == (("RetrievalMetric",), ("a.pt",))


@pytest.mark.parametrize(
    "text", ["1e-5", "1e-05", "1.0e-05", "0.00001", "'1e-05'", "['1e-5']"]
)
def test_a_learning_rate_may_be_written_in_any_notation(text):
    assert load(f"fairseq.optimization.lr={text}").fairseq["optimization"]["lr"] == [
        1e-5
    ]


def test_overrides_have_yaml_types_and_win():
    config = load(
        "dataset.num_video_per_batch=4",
        "fairseq.common.fp16=false",
        "loss.sequence_contrast=null",
        "model.layernorm_only=false",
        "nprobe=3",
        "centroids='8'",
    )
    assert config.dataset.num_video_per_batch == 4
    assert config.fairseq["common"]["fp16"] is False
    assert config.loss.sequence_contrast is None
    assert config.model.layernorm_only is False
    assert (config.retrieval.nprobe, config.retrieval.centroids) == (3, 8)


def write(folder, values):
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"includes": TRAINING, **values}))
    return path


def test_keys_of_retrieval_may_be_in_a_section(tmp_path):
    path = write(tmp_path, {"num_cands": 70, "retrieval": {"recall": 0.9, "nprobe": 2}})
    config = load("retrieval.nprobe=3", "recall=0.8", base=path)
    retrieval = config.retrieval
    assert (retrieval.num_cands, retrieval.nprobe, retrieval.recall) == (70, 3, 0.8)
    assert "retrieval" not in config.to_dict()
    assert load("retrieval=null").retrieval == load().retrieval


def test_a_setting_must_not_be_given_twice(tmp_path):
    path = write(tmp_path, {"nprobe": 2, "retrieval": {"nprobe": 3}})
    assert problems_of(base=path) == [
        "`nprobe` and `retrieval.nprobe` are one setting; remove either."
    ]


def test_all_mistakes_are_reported_at_once():
    assert problems_of(
        "dataset.max_len=16",
        "dataset.alinger=X",
        "dataset.sampled_min_len=many",
        "dataset.num_cands=3",
        "fairseq.common.fp_16=true",
        "fairseq.common.bf16=true",
        "fairseq.optimizaton={}",
        "fairseq.dataset.lr=[1]",
        "model.model_cls=null",
        "model.num_hidden_video_layers=0",
        "loss=3",
        "db_type=flat",
        "num_cands",
    ) == [
        "the override `num_cands` must have the form `section.key=value`.",
        "`dataset.sampled_min_len` must be a whole number, but is 'many'.",
        "`dataset.alinger` is not a known key. Did you mean `aligner`?",
        "`dataset.num_cands` is not a known key; `num_cands` belongs at the top level.",
        "`fairseq.common.fp_16` is not a known key. Did you mean `fp16`?",
        "`fairseq.dataset.lr` is not a known key; `lr` belongs under `fairseq.optimization`.",
        "`fairseq.optimizaton` is not a known key. Did you mean `optimization`?",
        "`model.num_hidden_video_layers` must be at least 1, but is 0.",
        "`loss` must be a mapping, but is 3.",
        "`db_type` must be `flatl2`, `innerproduct`, `pq` or `exact`, but is 'flat'.",
        "`model.model_cls` is missing; a training config needs it (evaluation configs say "
        "`dataset.split: test`).",
        "`dataset.max_len` must be at least `max_video_len` + 3 (19), but is 16.",
        "`fairseq.common.fp16` and `fairseq.common.bf16` cannot both be true; choose one.",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        # Bounds and types of single keys.
        ("dataset.split=dev", "must be `train`, `valid` or `test`, but is 'dev'."),
        ("dataset=3", "must be a mapping, but is 3."),
        ("fairseq=3", "must be a mapping, but is 3."),
        ("loss.beta=-0.1", "must be at least 0, but is -0.1."),
        ("loss.masked_outer_sum=page", "must be `released` or `paper`, but is 'page'."),
        ("loss.sequence_contrast.prompt_ratio=0", "must be above 0, but is 0."),
        ("loss.sequence_contrast.prompt_ratio=1.5", "must be at most 1, but is 1.5."),
        (
            "model.checkpoint_activations=0",
            "must be `auto` or false or at least 1, but is 0.",
        ),
        (
            "model.checkpoint_activations=true",
            "must be `auto` or false or a whole number, but",
        ),
        ("clips_per_forward=0", "must be at least 1 or `auto`, but is 0."),
        ("nprobe=all", "must be a whole number or `auto`, but is 'all'."),
        ("centroids=8.5", "must be a whole number, but is 8.5."),
        ("centroids=true", "must be a whole number, but is True."),
        ("recall=.nan", "must be a finite number, but is nan."),
        ("recall=true", "must be a number, but is True."),
        ("freeze_plan=1", "must be true or false, but is 1."),
        ("vectorpool_cls=3", "must be text, but is 3."),
        (
            "num_cands=10000000000000000000000",
            "must be at most 2147483647 in size, but is 100",
        ),
        # Keys that no class reads.
        ("datset={}", "is not a known key. Did you mean `dataset`?"),
        ("nprobes=null", "is not a known key. Did you mean `nprobe`?"),
        (
            "layernorm_only=true",
            "is not a known key; `layernorm_only` belongs under `model`.",
        ),
        (
            "loss.threshold=3",
            "is not a known key; `threshold` belongs under `loss.sequence_contra",
        ),
        (
            "memory=16GB",
            "is no longer a key: its work is done by `model.checkpoint_activations`",
        ),
        ("model.tf32=false", "is no longer a key: float32 is computed in float32; "),
        (
            "bank=ram",
            "is no longer a key: the vectors of all videos are kept in files; ",
        ),
        ("keep_centre=true", "is no longer a key: a batch is a sample"),
        ("resolved=true", "is no longer a key: leave it out"),
        (
            "loss.options={margin: 3}",
            "is no longer a key: your class declares its keys in a section",
        ),
        # Relations between keys.
        ("dataset.tfeat_dir=null", "is missing; `task: VideoRetriTask` needs it."),
        ("num_cands=null", "is missing; `retri_epoch` needs it."),
        ("dataset.max_len=18", "must be at least `max_video_len` + 3 (19), but is 18."),
        (
            "dataset.sampled_max_len=7",
            "must be at least `sampled_min_len` (8), but is 7.",
        ),
        (
            "dataset.sampled_video_max_len=2",
            "must be at least `sampled_video_min_len` (3), but is",
        ),
        (
            "num_cands=63",
            "must be at least `dataset.num_video_per_batch` (64), but is 63.",
        ),
        (
            "dataset.clip_per_video=12",
            "must be a multiple of `loss.sequence_contrast.threshold`",
        ),
    ],
)
def test_each_mistake_is_reported(override, problem):
    assert_only_problem(override, problem)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        # Bounds and types of single options.
        ("common.seed=-5", "must be at least 0, but is -5."),
        ("common.seed=4294967296", "must be at most 2147483647 in size"),
        ("common.log_format=xml", "must be `json`, `none`, `simple`"),
        (
            "optimization.update_freq=[0]",
            "must be a list, each at least 1, but is [0].",
        ),
        ("optimization.update_freq=[]", "must have a length of at least 1, but is []."),
        ("optimization.lr=[0]", "must be a list, each above 0, but is [0]."),
        ("optimization.lr=[1,2]", "must have a length of at most 1, but is [1, 2]."),
        (
            "optimization.adam_betas=[0.9]",
            "must be two numbers of at least 0 and below 1, such as",
        ),
        ("optimization.adam_betas='0.9; 1'", "must be two numbers"),
        ("optimizer.adam_betas=(0.9, 1.0)", "must be two numbers"),
        ("optimization.clip_norm=-1", "must be at least 0, but is -1."),
        ("optimization.optimizer=sgd", "must be `adam`, but is 'sgd'."),
        (
            "lr_scheduler.lr_scheduler=cosine",
            "must be `polynomial_decay` or `fixed`, but is",
        ),
        (
            "optimization.ddp_backend=pytorch_ddp",
            "must be `no_c10d` or `legacy_ddp`, but is",
        ),
        ("distributed_training.ddp_backend=c10d", "must be `no_c10d`"),
        ("checkpoint.best_checkpoint_metric=foo", "must be `loss`, but is 'foo'."),
        # Options that a YAML must not set.
        (
            "checkpoint.finetune_from_model=a.pt",
            "is not supported: name the weights in `restore",
        ),
        ("ema={store_ema: true}", "is not supported: there are no averaged weights"),
        (
            "distributed_training.distributed_world_size=2",
            "is set by the launcher; leave it out.",
        ),
        # Relations between options.
        ("checkpoint.save_dir=null", "is missing; a training config needs it ("),
        ("dataset.batch_size=2", "must be 1 with `task: VideoRetriTask`"),
        (
            "optimization.total_num_update=null",
            "is missing; `lr_scheduler: polynomial_decay` need",
        ),
        (
            "optimization.warmup_updates=1000001",
            "must be at most `total_num_update` (1000000), bu",
        ),
        (
            "common.amp=true",
            "must be false: it would compute the loss in half precision",
        ),
        ("common_eval={path: x}", "belongs to evaluation configs"),
        ("dataset.valid_subset=test", "must be `valid` in training, but is `test`"),
    ],
)
def test_each_mistake_in_options_of_fairseq_is_reported(override, problem):
    assert_only_problem(f"fairseq.{override}", problem)


def test_mistakes_in_the_relation_of_two_keys():
    assert problems_of(
        "task=null", "dataset.subsampling=8", "fairseq.dataset.batch_size=4"
    ) == [
        "`fairseq.dataset.batch_size` must be at least `dataset.subsampling` (8), but is 4."
    ]
    fixed = "fairseq.optimization.lr_scheduler=fixed"
    assert problems_of(fixed) == [
        "`fairseq.optimization.total_num_update` needs `lr_scheduler: polynomial_decay`; set that, "
        "or leave it out."
    ]


def test_if_two_groups_set_an_option_the_last_one_wins():
    group = "fairseq.lr_scheduler"  # comes after `fairseq.optimization`
    assert problems_of(
        f"{group}.total_num_update=10", f"{group}.warmup_updates=11"
    ) == [
        "`fairseq.optimization.warmup_updates` must be at most `total_num_update` (10), but is "
        "1000.",
        "`fairseq.lr_scheduler.warmup_updates` must be at most `total_num_update` (10), but is 11.",
    ]


def test_fairseq_options_at_their_bounds():
    options = {
        "total_num_update": 10,
        "warmup_updates": 10,
        "adam_betas": [0, 0.9],
        "max_epoch": 0,
        "clip_norm": 0,
        "update_freq": [1],
    }
    overrides = [
        f"fairseq.optimization.{name}={value}" for name, value in options.items()
    ]
    config = load(*overrides, "fairseq.common.seed=0")
    assert config.fairseq["optimization"].items() >= options.items()
    assert config.option("common", "seed", 1) == 0


def test_the_schedule_may_end_with_the_last_update():
    no_total = "fairseq.optimization.total_num_update=null"
    max_update = "fairseq.optimization.max_update=1000"  # the number of warm-up updates
    config = load(no_total, max_update)
    assert config.option("optimization", "total_num_update") is None
    assert config.option("optimization", "max_update") == 1000
    (problem,) = problems_of(no_total, "fairseq.optimization.max_update=999")
    assert problem.endswith("must be at most `total_num_update` (999), but is 1000.")


def test_config_errors_are_value_errors():
    message = (
        r"how2_pretrain\.yaml: 1 mistake\n  - `fairseq.checkpoint.save_dir` is missing"
    )
    with pytest.raises(ValueError, match=message):
        load("fairseq.checkpoint=null")


def test_an_evaluation_needs_a_predictor():
    assert problems_of("predictor=null", base=TEST) == [
        "`predictor` is missing; an evaluation config (`dataset.split: test`) needs it."
    ]


def test_old_keys_are_logged_in_one_line(caplog):
    with caplog.at_level("INFO", logger="mmpt.config.loader"):
        load("run_task=[a]", "dataset.mlm_probability=0.15", "task=null")
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage() == (
        f"{TRAINING}: these keys have no effect here: run_task, "
        "dataset.lazy_vfeat_mask, dataset.mlm_probability, retri_epoch"
    )


def test_old_keys_of_an_included_file_are_not_logged(tmp_path, caplog):
    path = tmp_path / "own.yaml"
    path.write_text(f"includes: {TRAINING}\ndataset:\n  mlm_probability: 0.15\n")
    with caplog.at_level("INFO", logger="mmpt.config.loader"):
        load_config(path)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{path}: these keys have no effect here: dataset.mlm_probability"
    )


def test_the_batch_size_is_divided_by_subsampling_but_saved_undivided(tmp_path):
    config = load(
        "dataset.subsampling=32",
        "fairseq.dataset.batch_size=256",
        "metric=A",
        "task=null",
        f"fairseq.checkpoint.save_dir={tmp_path}/s",
        "freeze_plan=true",
        "slurm_config=null",
    )
    assert config.batch_size == 8  # 256 // 32, as in VLM's released YAML
    config = with_run_dir(config)
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


def test_only_one_of_loggers_and_fairseq_writes_for_tensorboard(tmp_path):
    save_dir = f"fairseq.checkpoint.save_dir={tmp_path}"
    for loggers, written in (("[wandb]", True), ("[wandb,tensorboard]", False)):
        config = with_run_dir(load(save_dir, f"loggers={loggers}"))
        assert ("--tensorboard-logdir" in fairseq_flags(config)) == written
        save_resolved(config, tmp_path / "saved.yaml")
        again = with_run_dir(load_config(tmp_path / "saved.yaml"))
        assert ("--tensorboard-logdir" in fairseq_flags(again)) == written


@pytest.mark.parametrize("text", ["1e5", "${dataset.vfeat_dir}", "\\${x}", "", "a: #b"])
def test_a_saved_config_is_read_back(text, tmp_path):
    config = load("nprobe=7", "freeze_plan=true", "loss.gather_negatives=true")
    dataset = config.dataset.replace(tfeat_dir=text)
    config = config.model_copy(update={"dataset": dataset})
    config = config.with_option("checkpoint", "save_dir", text)
    save_resolved(config, tmp_path / "saved.yaml")
    again = load(base=tmp_path / "saved.yaml")
    assert again.to_dict() == config.to_dict()
    assert again.dataset.tfeat_dir == again.save_dir == text


def test_a_filled_in_evaluation_may_contain_dollar_signs(tmp_path):
    path = tmp_path / "test.yaml"
    path.write_text(r"includes: projects/retri/norton/test_how2align_zs.yaml")
    config = load(r"eval.save_path=runs/\${x}", base=path)
    assert config.eval.save_path == "runs/${x}"


def test_the_distributed_pool_has_its_own_default():
    pool = ("vectorpool_cls=DistributedVideoVectorPool", "centroids=null")
    assert load(*pool).retrieval.centroids == 4096
    assert load(*pool, "centroids=9").retrieval.centroids == 9
    assert load("centroids=null").retrieval.centroids == 512


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


def test_the_fingerprint_does_not_depend_on_the_path_of_the_file():
    config = load_config(TRAINING)
    elsewhere = config.model_copy(update={"path": "elsewhere.yaml"})
    assert elsewhere.fingerprint == config.fingerprint
    assert load_config(TRAINING, ["infer_scale=3"]).fingerprint != config.fingerprint


def test_a_run_continues_from_its_last_checkpoint(tmp_path):
    assert last_checkpoint(str(tmp_path)) is None
    (tmp_path / "checkpoint_last.pt").touch()
    assert last_checkpoint(str(tmp_path)) == f"{tmp_path}/checkpoint_last.pt"


def test_the_readers_of_features_get_the_width_of_the_model(tmp_path):
    config = load("model.input_dim=768", "dataset.feature_fps=2")
    assert config.dataset.feature_dim == 768
    assert config.dataset.num_video_slots == 32
    assert config.dataset.max_text_len == load().dataset.max_text_len
    assert load().dataset.feature_dim == 512
    save_resolved(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml").to_dict() == config.to_dict()
    assert_only_problem(
        "dataset.feature_dim=768", "is derived from `model.input_dim`; set that key"
    )
    assert_only_problem("dataset.feature_fps=0", "must be above 0, but is 0")
    assert_only_problem("model.input_dim=0", "must be at least 1, but is 0")


@pytest.mark.parametrize(
    ("duration_s", "fps", "rows"),
    [(16, 1, 16), (16, 2, 32), (16, 1.6, 26), (16, 0.5, 8), (70, 0.1, 7), (1, 0.1, 1)],
)
def test_a_duration_in_feature_rows_is_rounded_up(duration_s, fps, rows):
    config = load(f"dataset.feature_fps={fps}")
    assert config.dataset.num_rows(duration_s) == rows
