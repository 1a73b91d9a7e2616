"""Folders of the project that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `mmpt/`, `projects/` and `locallaunch.py`."""
GOLDEN = ROOT / "tests" / "parity" / "golden"
"""Numbers that were recorded from the original software."""
