"""The folder of a tiny BERT without weights: the vocabulary and the sizes that the recorded numbers
were made with.
"""

import shutil
from pathlib import Path

GOLDEN = Path(__file__).parent / "parity" / "golden"


def tiny_bert(folder: Path) -> str:
    """Write the folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(GOLDEN / "vocab.txt", folder / "vocab.txt")
    shutil.copy(GOLDEN / "tinybert_config.json", folder / "config.json")
    return str(folder)
