"""Tokenises the captions of every packed video into text shards."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mmpt.cli.app import Command, Overrides
from mmpt.config.fields import coerce
from mmpt.config.yaml_files import merge, parse_overrides, read_yaml
from mmpt.errors import ConfigError
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.registry import did_you_mean
from mmpt.utils.log import get_logger

logger = get_logger("tokenize")

KEYS = {"bert_name": str, "caption_pkl_path": str, "target_dir": str, "use_fast": bool}


@dataclass(frozen=True, kw_only=True)
class TokenConfig:
    """The keys of `dataset`."""

    bert_name: str
    """Names the tokenizer: a folder or a hub name."""
    caption_pkl_path: str
    """The captions: .jsonl, .json or .pkl, whichever form is there."""
    target_dir: str
    """Folder of the packed features, where the text shards go too."""
    use_fast: bool = True
    """Use the tokenizer's compiled form."""


def tokenize(
    config: Annotated[
        str, typer.Argument(metavar="YAML", help="A file such as configs/bert-base-uncased.yaml.")
    ],
    overrides: Overrides = None,
    *,
    workers: Annotated[int, typer.Option(min=1, help="Shards at once.")] = os.cpu_count() or 1,
) -> None:
    """Tokenise the captions of every packed video into text shards.

    Run it again after a break and it continues. Videos without captions get an empty row, which
    training leaves out; they are listed in `<target_dir>/<prefix>report.json`.
    """
    settings = read_config(config, overrides or [])
    tfeat_dir = tokenise_captions(
        settings.caption_pkl_path,
        settings.target_dir,
        settings.bert_name,
        use_fast=settings.use_fast,
        workers=workers,
    )
    logger.info("done; `dataset.tfeat_dir` of a training YAML is %s", tfeat_dir)


def read_config(path: str, overrides: list[str]) -> TokenConfig:
    """Return the settings of a YAML file; ConfigError with every mistake in it."""
    values, problems = parse_overrides(overrides)
    whole = merge(read_yaml(path), values)
    problems += [
        f"`{key}` is no section of this file; it has `dataset` only."
        for key in whole
        if key != "dataset"
    ]
    section = whole.get("dataset")
    if not isinstance(section, dict):
        raise ConfigError(path, [*problems, f"`dataset` must be a mapping, but is {section!r}."])
    found: dict[str, Any] = {}
    for key, value in section.items():
        if key not in KEYS:
            problems.append(f"`dataset.{key}` is unknown.{did_you_mean(str(key), list(KEYS))}")
            continue
        try:
            found[str(key)] = coerce(value, KEYS[key])
        except ValueError as err:
            problems.append(f"`dataset.{key}` {err}.")
    missing = [key for key in KEYS if key not in section and key != "use_fast"]
    problems += [f"`dataset.{key}` must be set, but is not." for key in missing]
    if problems:
        raise ConfigError(path, problems)
    return TokenConfig(**found)


main = Command(tokenize, stopped="run the same command again to continue")


if __name__ == "__main__":
    sys.exit(main())
