"""The fairseq task: the minutes that are left, and what a run records."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmpt.config import load_config
from mmpt.shards.feature_info import FeatureInfo, write_feature_info
from mmpt.tasks.fairseqmmtask import FairseqMMTask
from mmpt.utils.io import read_json
from mmpt.utils.run_loggers import RUN_FACTS
from tests.support.paths import ROOT


class Batches(SimpleNamespace):
    """The progress of an epoch of 10 batches."""

    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize(
    ("max_epoch", "max_update", "left"),
    [
        (3, 0, [0, 4, 2, 0]),
        (0, 30, [0, 4, 2, 0]),
        (6, 30, [0, 4, 2, 0]),
        (0, 0, [0, 0, 0, 0]),
    ],
)
def test_minutes_left_at_the_pace_so_far(
    max_epoch: int, max_update: int, left: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run continues after 5 of 30 updates and needs a minute for 5 of them."""
    args = Namespace(max_epoch=max_epoch, max_update=max_update)
    task: Any = SimpleNamespace(start=None, args=args)
    found = []
    for update in (5, 10, 20, 30):
        monkeypatch.setattr("time.monotonic", lambda now=12.0 * update: now)
        task.num_updates = update - 1
        epoch = -(-update // 10)
        batches: Any = Batches(
            epoch=epoch, iterations_in_epoch=update - 10 * (epoch - 1)
        )
        found.append(FairseqMMTask._minutes_left(task, batches))
    assert found == pytest.approx(left)


def test_a_run_records_its_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of the features may be gone when the model is used."""
    monkeypatch.setattr("atexit.register", lambda _: None)
    features = FeatureInfo(encoder="hf:a/clip", revision="ce19", width=24, fps=2)
    write_feature_info(tmp_path / "feat", features)
    overrides = [f"dataset.vfeat_dir={tmp_path}/feat"]
    yaml = ROOT / "projects/retri/norton/how2_demo.yaml"
    config = load_config(yaml, overrides, import_fairseq=False)
    task: Any = SimpleNamespace(
        world=SimpleNamespace(is_main=True),
        args=Namespace(save_dir=str(tmp_path)),
        inner=SimpleNamespace(config=config),
        end_logs=None,
    )
    FairseqMMTask.begin_log(task, 0, is_due=False)
    facts = read_json(tmp_path / RUN_FACTS)
    assert FeatureInfo(**facts["features"]) == features
