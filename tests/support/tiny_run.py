"""The folder of a run for tests of inference: the recorded tiny checkpoint, its BERT and a YAML."""

import shutil
from pathlib import Path

import yaml

from tests.support.paths import GOLDEN
from tests.support.tiny_bert import tiny_bert

F, T = 16, 32


def make_run(folder: Path) -> Path:
    """Writes `folder`/config.yaml and `folder`/checkpoint_best.pt, and returns the folder."""
    bert = tiny_bert(folder / "bert")
    config = {
        "dataset": {
            "split": "test",
            "meta_processor": "How2ClipMetaProcessor",
            "video_processor": "How2ClipVideoProcessor",
            "text_processor": "TextProcessor",
            "aligner": "DSAligner",
            "bert_name": bert,
            "test_path": "none.json",
            "vfeat_dir": "none",
            "max_video_len": F,
            "max_len": F + T,
        },
        "model": {"model_cls": "MMFusionSeparate", "num_hidden_video_layers": 2},
        "fairseq": {"common_eval": {"path": str(folder / "checkpoint_best.pt")}},
        "eval": {"save_path": str(folder)},
        "metric": ["RetrievalMetric"],
        "predictor": "RetrievalPredictor",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(GOLDEN / "checkpoint_norton_tiny.pt", folder / "checkpoint_best.pt")
    return folder
