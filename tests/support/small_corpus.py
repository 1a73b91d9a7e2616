"""A small corpus, made by the project's own command, with a tiny BERT."""

import json
from pathlib import Path

from mmpt.cli import make_demo_data


def make_small_corpus(folder: Path) -> None:
    """Writes 32 training and 8 validation videos.

    The BERT has width 32, two layers and no dropout.
    """
    sizes = ["--num-videos", "32", "--num-val", "8", "--shard-size", "20"]
    assert make_demo_data.main(["--out", str(folder), "--seed", "3", *sizes]) == 0
    config_path = folder / "bert" / "config.json"
    bert = json.loads(config_path.read_text())
    bert |= {"hidden_size": 32, "intermediate_size": 64}
    bert |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    bert |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config_path.write_text(json.dumps(bert))
