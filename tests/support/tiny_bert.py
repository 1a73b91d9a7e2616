"""The folder of a tiny BERT without weights: the vocabulary and the sizes that the recorded numbers
were made with.
"""

import shutil
from pathlib import Path

from transformers import BertConfig

from tests.support.paths import GOLDEN


def tiny_bert(folder: Path) -> str:
    """Write the folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(GOLDEN / "vocab.txt", folder / "vocab.txt")
    shutil.copy(GOLDEN / "tinybert_config.json", folder / "config.json")
    return str(folder)


def tiny_bert_config() -> BertConfig:
    """Return the sizes: width 64, 4 layers and 383 word pieces."""
    return BertConfig.from_json_file(GOLDEN / "tinybert_config.json")
