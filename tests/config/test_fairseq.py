"""The options of `fairseq:` against the dataclasses of the installed fairseq, and without it."""

import dataclasses
import logging
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from mmpt.config import RunConfig
from mmpt.config.fairseq import BOUNDS, GROUPS, OWN, settings_model
from mmpt.config.mistakes import validate
from mmpt.config.run import RESETS, fairseq_flags
from tests.support.paths import ROOT


@pytest.fixture
def no_fairseq(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings_model.cache_clear()
    monkeypatch.setitem(sys.modules, "fairseq.dataclass", None)
    yield
    settings_model.cache_clear()


def fields_of_fairseq() -> Iterator[dataclasses.Field[Any]]:
    """Yields every option of the dataclasses. Some options are yielded more than once."""
    pytest.importorskip("fairseq")
    from fairseq.dataclass import configs
    from fairseq.optim.adam import FairseqAdamConfig
    from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
        PolynomialDecayLRScheduleConfig,
    )

    groups = [FairseqAdamConfig, PolynomialDecayLRScheduleConfig]
    names = (
        "Common",
        "CommonEval",
        "Dataset",
        "Optimization",
        "Checkpoint",
        "DistributedTraining",
    )
    groups += [getattr(configs, f"{name}Config") for name in names]
    for group in groups:
        yield from dataclasses.fields(group)


def parse(**groups: Any) -> tuple[dict[str, Any], list[str]]:
    """Returns the accepted options by group, and all mistakes."""
    values, problems = validate(
        settings_model(import_fairseq=True), {"fairseq": groups}
    )
    return values["fairseq"], problems


def problems_in(**groups: Any) -> list[str]:
    return parse(**groups)[1]


def test_options_have_the_names_types_and_choices_of_fairseq() -> None:
    assert problems_in(
        common={"user_dir": "x", "fp16_scale_window": 3, "profile": True}
    ) == ["`fairseq.common.user_dir` is set by the launcher; leave it out."]
    assert problems_in(
        common={"fp16_scale_window": 0.5, "profile": 1, "log_file": 2}
    ) == [
        "`fairseq.common.fp16_scale_window` must be a whole number, but is 0.5.",
        "`fairseq.common.profile` must be true or false, but is 1.",
        "`fairseq.common.log_file` must be text, but is 2.",
    ]
    assert problems_in(dataset={"dataset_impl": "mmapp"}) == [
        "`fairseq.dataset.dataset_impl` must be `raw`, `lazy`, `cached`, `mmap`, `fasta` or "
        "`huffman`, but is 'mmapp'."
    ]
    (problem,) = problems_in(dataset={"batchsize": 1})
    assert (
        problem
        == "`fairseq.dataset.batchsize` is not a known key. Did you mean `batch_size`?"
    )


def test_options_for_unsupported_devices_are_unknown() -> None:
    for name in ("tpu", "zero_sharding", "pipeline_balance", "cpu_offload", "_name"):
        (problem,) = problems_in(distributed_training={name: "x"})
        assert problem.startswith(
            f"`fairseq.distributed_training.{name}` is not a known key"
        )
    (problem,) = problems_in(distributed_training={"fp16": True})
    assert problem.endswith("`fp16` belongs under `fairseq.common`.")


def test_the_released_yamls_have_the_optimizer_under_optimization() -> None:
    options = {
        "optimizer": "adam",
        "adam_betas": "(0.9, 0.98)",
        "weight_decay": 0.0,
        "lr_scheduler": "polynomial_decay",
        "warmup_updates": 10,
        "total_num_update": 1000000,
        "ddp_backend": "no_c10d",
    }
    found, problems = parse(optimization=options)
    assert (found, problems) == ({"optimization": options}, [])
    assert list(found["optimization"]) == list(options)  # the order of the command line
    # A float in fairseq.
    assert str(found["optimization"]["total_num_update"]) == "1000000"


def test_every_bound_belongs_to_an_option_and_allows_its_default() -> None:
    fields = {field.name: field for field in fields_of_fairseq()}
    own = {name for group in OWN.values() for name in group}
    assert not own & fields.keys()
    assert set(BOUNDS) <= {*fields, *own, "optimizer", "lr_scheduler"}
    for name, bound in BOUNDS.items():
        if name == "ddp_backend":  # fairseq's default does not work with MMPT
            continue
        default = getattr(fields.get(name), "default", None)
        if isinstance(default, int | float | str) and "${" not in str(default):
            TypeAdapter(bound).validate_python(default)


def test_every_bound_has_fairseqs_type() -> None:
    for field in fields_of_fairseq():
        ours, theirs = BOUNDS.get(field.name), field.type
        if ours is None or field.name in ("adam_betas", "path", "ddp_backend"):
            continue
        schemas = [TypeAdapter(kind).json_schema() for kind in (ours, theirs)]
        for schema in schemas:
            schema |= next(iter(schema.get("anyOf", [])), {})  # without None
        assert schemas[0]["type"] == schemas[1]["type"], field.name
        if typing.get_origin(theirs) is list:
            assert schemas[0]["items"]["type"] == schemas[1]["items"]["type"], (
                field.name
            )


def test_no_switch_is_on_by_default() -> None:
    """fairseq would make these options `store_false`, which `fairseq_flags` does not support."""
    schema = settings_model(import_fairseq=True).model_json_schema()
    known = {name for group in GROUPS for name in schema["$defs"][group]["properties"]}
    assert [
        f.name for f in fields_of_fairseq() if f.default is True and f.name in known
    ] == []


@pytest.mark.usefixtures("no_fairseq")
def test_without_fairseq_only_options_with_bounds_are_checked() -> None:
    found, problems = parse(common={"sed": 3, "seed": "4"}, checkpoint=None)
    assert (found, problems) == ({"common": {"sed": 3, "seed": 4}}, [])
    assert problems_in(dataset={"batch_size": "x"}) == [
        "`fairseq.dataset.batch_size` must be a whole number, but is 'x'."
    ]


@pytest.mark.spawn
def test_fairseq_is_imported_late_and_does_not_change_logging() -> None:
    code = (
        "import logging, sys\nimport mmpt.config\n"
        "assert not {'torch', 'fairseq'} & set(sys.modules)\n"
        "mmpt.config.load_config('projects/retri/norton/how2_pretrain.yaml')\n"
        "root = logging.getLogger()\n"
        "print(root.handlers, root.level, 'fairseq' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"[] {logging.WARNING} True\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"lr": [1e-05], "adam_betas": "(0.9, 0.98)"},
            "--lr 1e-05 --adam-betas (0.9, 0.98)",
        ),
        ({"adam_betas": [0.9, 0.98]}, "--adam-betas (0.9, 0.98)"),
        ({"clip_norm": 2.0, "max_epoch": 6}, "--clip-norm 2.0 --max-epoch 6"),
        ({"update_freq": [4]}, "--update-freq [4]"),
        ({"sentence_avg": False, "use_bmuf": True, "max_update": None}, "--use-bmuf"),
        (
            {"reset_optimizer": True, "save_dir": "b", "restore_file": "a"},
            "--save-dir b",
        ),
    ],
)
def test_a_resumed_run_has_no_flags_that_reset_it(
    options: dict[str, Any], expected: str
) -> None:
    config = RunConfig(fairseq={"optimization": options, "common": {"seed": 1}})
    flags = fairseq_flags(config, without=RESETS.split())
    assert " ".join(flags) == f"{expected} --seed 1"
    assert all(" " not in flag for flag in flags if flag.startswith("--"))
