"""The catalogue of downloads, `catalogue.yaml`: the items, their addresses and their paths."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter


class _Entry(BaseModel):
    """A part of the catalogue. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Entry):
    """A file to download. `catalogue.yaml` describes the fields."""

    target: str
    urls: tuple[str, ...] = ()
    members: dict[str, str] = {}


class Item(_Entry):
    """The files of one name on the command line. `catalogue.yaml` describes the fields."""

    about: str
    source: str
    files: tuple[File, ...] = ()
    by_hand: str = ""
    if_gone: str = ""


def _read_catalogue() -> dict[str, Item]:
    """Returns the items by name."""
    path = Path(__file__).with_name("catalogue.yaml")
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return TypeAdapter(dict[str, Item]).validate_python(content)


CATALOGUE = _read_catalogue()


def list_catalogue() -> str:
    """Returns a text that lists the items, the paths of their files, and their addresses."""
    lines = []
    indent = " " * 16
    for name, item in CATALOGUE.items():
        lines.append(f"{name:<14} {item.about}")
        for file in item.files:
            paths = file.members.values() or [file.target]
            for path in paths:
                lines.append(f"{indent} -> {path}")
        for file in item.files:
            for url in file.urls:
                lines.append(f"{indent} from {url}")
        if item.by_hand:
            lines.append(f"{indent} by hand: {item.by_hand}")
        else:
            lines.append(f"{indent} published in: {item.source}")
    return "\n".join(lines)
