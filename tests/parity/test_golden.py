"""The recorded files are described."""

import re

from tests.support.paths import GOLDEN


def test_every_recorded_file_is_described() -> None:
    rows = re.findall(r"^\|(.*?)\|", (GOLDEN / "README.md").read_text(), re.MULTILINE)
    described = re.findall(r"`([\w.]+)`", " ".join(rows))
    files = sorted(path.name for path in GOLDEN.iterdir() if path.name != "README.md")
    assert sorted(described) == files
