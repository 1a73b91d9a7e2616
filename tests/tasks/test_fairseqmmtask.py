"""The fairseq task: the facts that a run records."""

from pathlib import Path

from mmpt.config import load_config
from mmpt.shards.feature_info import FeatureInfo, write_feature_info
from mmpt.tasks.fairseqmmtask import run_metadata
from mmpt.utils.io import read_json
from mmpt.utils.run_loggers import RUN_METADATA
from tests.support.paths import ROOT


def test_a_run_records_its_features(tmp_path: Path) -> None:
    """The folder of the features may no longer exist when the model is used."""
    features = FeatureInfo(encoder="hf:a/clip", revision="ce19", width=24, fps=2)
    write_feature_info(tmp_path / "feat", features)
    overrides = [f"dataset.vfeat_dir={tmp_path}/feat"]
    yaml = ROOT / "projects/retri/norton/how2_demo.yaml"
    config = load_config(yaml, overrides, import_fairseq=False)
    run_metadata(config, tmp_path, num_updates=0).write()
    facts = read_json(tmp_path / RUN_METADATA)
    assert FeatureInfo(**facts["features"]) == features
