"""Puts scripts/ on the path, as it is when one of its files is run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
