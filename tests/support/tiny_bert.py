"""A tiny BERT without weights, with the vocabulary and the sizes of the recorded numbers."""

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
