"""A released HTM-Align YAML has no classes, checkpoint or metric. They are added, and all other
settings are kept.
"""

import copy
from pathlib import Path
from typing import Any

import pytest

from mmpt.config import load_config
from mmpt.config.released import fill_released
from mmpt.errors import ConfigError

RELEASED: dict[str, Any] = {
    "dataset": {
        "split": "test",
        "anno_path": "a.json",
        "vfeat_dir": "f",
        "bert_name": "b",
        "max_video_len": 32,
        "max_len": 96,
    },
    "fairseq": {"dataset": {"batch_size": 256, "num_workers": 2}},
    "model": {"model_cls": "MMFusionSeparate"},
    "eval": {"save_path": "runs/x/"},
}


def test_missing_settings_are_filled_in_and_listed() -> None:
    before = copy.deepcopy(RELEASED)
    values, added = fill_released(RELEASED)
    assert before == RELEASED
    assert values["fairseq"]["common_eval"]["path"] == "runs/x/checkpoint_best.pt"
    assert values["fairseq"]["dataset"] == {"batch_size": 1, "num_workers": 2}
    assert values["metric"] == ["How2AlignMetric"]
    assert "dataset.aligner: How2AlignAligner" in added
    assert "fairseq.dataset.batch_size: 1" in added


def test_given_settings_are_kept() -> None:
    values = copy.deepcopy(RELEASED)
    values["dataset"] |= {"meta_processor": "Mine", "sliding_window": 4}
    values |= {"metric": ["MyMetric"]}
    values["fairseq"]["common_eval"] = {"path": "mine.pt"}
    filled, added = fill_released(values)
    assert filled["dataset"]["meta_processor"] == "Mine"
    assert filled["dataset"]["sliding_window"] == 4
    # The loader refuses this value later, as the user wrote it.
    assert filled["fairseq"]["dataset"]["batch_size"] == 256
    assert (filled["metric"], filled["fairseq"]["common_eval"]["path"]) == (
        ["MyMetric"],
        "mine.pt",
    )
    assert not any(
        line.startswith(("dataset.meta", "metric", "fairseq")) for line in added
    )


@pytest.mark.parametrize("change", [{"split": None}, {"anno_path": None}])
def test_other_yamls_are_not_changed(change: dict[str, None]) -> None:
    values = {**RELEASED, "dataset": {**RELEASED["dataset"], **change}}
    assert fill_released(values) == (values, [])


@pytest.mark.parametrize(
    "mistake",
    [{"fairseq": "x"}, {"eval": None}, {"eval": {"save_path": 3}}, {"dataset": "x"}],
)
def test_mistakes_are_reported_by_the_loader(
    mistake: dict[str, Any], tmp_path: Path
) -> None:
    import yaml

    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**RELEASED, **mistake}))
    with pytest.raises(ConfigError):
        load_config(path)
