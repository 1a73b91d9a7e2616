"""Tokenise the captions of every packed video into text shards; run it again after a break and it goes on.

    python scripts/text_token_extractor/pretokenization.py scripts/text_token_extractor/configs/bert-base-uncased.yaml

Any key may be given behind the file as `dataset.key=value`. Videos without captions get an empty row, which training
leaves out; they are listed in `<target_dir>/<prefix>report.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from typing import Any

from mmpt.config.fields import coerce
from mmpt.config.yaml_files import merge, parse_overrides, read_yaml
from mmpt.errors import ConfigError, DataError
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.registry import did_you_mean
from mmpt.utils.command import run_command
from mmpt.utils.log import get_logger

logger = get_logger("pretokenization")

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


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(lambda: _tokenise(_parser().parse_intermixed_args(argv)), stopped="run it again to go on")


def _tokenise(args: argparse.Namespace) -> None:
    if args.workers < 1:
        raise DataError(f"`--workers` must be at least 1, but is {args.workers}.")
    config = read_config(args.config, args.overrides)
    tfeat_dir = tokenise_captions(
        config.caption_pkl_path, config.target_dir, config.bert_name, use_fast=config.use_fast, workers=args.workers
    )
    logger.info("done; `dataset.tfeat_dir` of a training YAML is %s", tfeat_dir)


def read_config(path: str, overrides: list[str]) -> TokenConfig:
    """Return the settings of a YAML file; ConfigError with every mistake in it."""
    values, problems = parse_overrides(overrides)
    whole = merge(read_yaml(path), values)
    problems += [f"`{key}` is no section of this file; it has `dataset` only." for key in whole if key != "dataset"]
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("config", help="YAML file, as configs/bert-base-uncased.yaml")
    parser.add_argument("overrides", nargs="*", help="dataset.key=value, instead of what the file says")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="shards at once (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
