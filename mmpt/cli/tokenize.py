"""Tokenises the captions of every packed video into text shards."""

import os
from typing import Annotated

from typer import Argument, Option

from mmpt.cli.app import Command, Overrides
from mmpt.config.mistakes import validate
from mmpt.config.schema import Section, Switch
from mmpt.config.yaml_files import parse_overrides, read_yaml
from mmpt.errors import ConfigError
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.utils.log import get_logger

logger = get_logger("tokenize")

REQUIRED = ("bert_name", "caption_pkl_path", "target_dir")


class TokenConfig(Section):
    """The keys of `dataset`."""

    bert_name: str = ""
    """Tokenizer: a name on the Hugging Face hub, or a folder. Required."""
    caption_pkl_path: str = ""
    """The captions: .jsonl, .json or .pkl, whichever form is there. Required."""
    target_dir: str = ""
    """Folder of the packed features, where the text shards are written. Required."""
    use_fast: Switch = True
    """Use the compiled tokenizer."""


class TokenFile(Section):
    """All keys of the YAML file."""

    dataset: TokenConfig = TokenConfig()
    """The captions and where they go."""


def tokenize(
    config: Annotated[
        str, Argument(metavar="YAML", help="A file such as configs/bert-base-uncased.yaml.")
    ],
    overrides: Overrides = None,
    *,
    workers: Annotated[int, Option(min=1, help="Shards at once.")] = os.cpu_count() or 1,
) -> None:
    """Tokenise the captions of every packed video into text shards.

    Run it again after a break and it continues. Videos without captions get an empty row, which
    training leaves out; they are listed in `<target_dir>/<prefix>report.json`.
    """
    values, problems = parse_overrides(overrides or [])
    whole = read_yaml(config, values)
    good, mistakes = validate(TokenFile, whole)
    section = whole.get("dataset", {})
    if isinstance(section, dict):
        missing = [key for key in REQUIRED if section.get(key) is None]
        mistakes += [f"`dataset.{key}` must be set, but is not." for key in missing]
    if problems + mistakes:
        raise ConfigError(config, problems + mistakes)
    settings = TokenFile(**good).dataset
    tfeat_dir = tokenise_captions(
        settings.caption_pkl_path,
        settings.target_dir,
        settings.bert_name,
        use_fast=settings.use_fast,
        workers=workers,
    )
    logger.info("done; `dataset.tfeat_dir` of a training YAML is %s", tfeat_dir)


main = Command(tokenize, stopped="run the same command again to continue")
