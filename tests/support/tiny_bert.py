"""Tiny BERTs without weights: with the sizes of the recorded numbers, and an even smaller one."""

import shutil
from pathlib import Path

from transformers import BertConfig

from tests.support.paths import GOLDEN


def tiny_bert(folder: Path) -> str:
    """Writes the folder of the BERT, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(GOLDEN / "vocab.txt", folder / "vocab.txt")
    shutil.copy(GOLDEN / "tinybert_config.json", folder / "config.json")
    return str(folder)


def tiny_bert_config() -> BertConfig:
    """Returns the sizes: width 64, 4 layers and 383 word pieces."""
    return BertConfig.from_json_file(GOLDEN / "tinybert_config.json")


def smallest_bert_config(**changes: int) -> BertConfig:
    """Returns the sizes of a BERT of width 8, with one layer, 2 heads and 20 word pieces.

    Args:
        changes: other values.
    """
    sizes = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    return BertConfig(**sizes | layers | changes)
