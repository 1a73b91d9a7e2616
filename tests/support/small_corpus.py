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
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    change_bert(folder, dropout=0.0, num_attention_heads=2, **tiny)


def change_bert(corpus: Path, *, dropout: float, **sizes: int) -> None:
    """Changes the configuration of a corpus's BERT."""
    path = corpus / "bert/config.json"
    config = json.loads(path.read_text()) | sizes
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    path.write_text(json.dumps(config))
