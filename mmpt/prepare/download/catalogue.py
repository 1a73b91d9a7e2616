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


_YAML = Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8")
CATALOGUE = TypeAdapter(dict[str, Item]).validate_python(yaml.safe_load(_YAML))


def list_catalogue() -> str:
    """Returns a text that lists the items, the paths of their files, and their addresses."""
    lines = []
    indent = " " * 16
    for name, item in CATALOGUE.items():
        lines.append(f"{name:<14} {item.about}")
        for file in item.files:
            paths = file.members.values() or [file.target]
            lines += [f"{indent} -> {path}" for path in paths]
        for file in item.files:
            lines += [f"{indent} from {url}" for url in file.urls]
        source = f"by hand: {item.by_hand}" if item.by_hand else f"published in: {item.source}"
        lines.append(f"{indent} {source}")
    return "\n".join(lines)
