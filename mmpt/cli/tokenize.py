"""`mmpt tokenize`: tokenises the captions of all packed videos into text shards."""

from typing import Annotated

from typer import Argument, Option

from mmpt.cli.main import Command, Overrides, num_cores
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
    """File of captions. The suffix may be .jsonl, .json or .pkl: the file that exists is read.
    Required.
    """
    target_dir: str = ""
    """Folder of the feature shards, to which the text shards are written. Required."""
    use_fast: Switch = True
    """Use the compiled tokenizer."""


class TokenFile(Section):
    """All keys of the YAML file."""

    dataset: TokenConfig = TokenConfig()
    """The captions, the tokenizer and the output folder."""


def _load_settings(path: str, overrides: list[str]) -> TokenConfig:
    """Returns the settings in a YAML file with overrides.

    Raises:
        ConfigError: the file or an override has mistakes. The error lists all of them.
    """
    values, problems = parse_overrides(overrides)
    whole = read_yaml(path, values)
    good, mistakes = validate(TokenFile, whole)
    section = whole.get("dataset", {})
    if isinstance(section, dict):
        missing = [key for key in REQUIRED if section.get(key) is None]
        mistakes += [f"`dataset.{key}` must be set, but is not." for key in missing]
    if problems + mistakes:
        raise ConfigError(path, problems + mistakes)
    return TokenFile(**good).dataset


def tokenize(
    config: Annotated[
        str,
        Argument(metavar="YAML", help="A file such as configs/bert-base-uncased.yaml."),
    ],
    overrides: Overrides = None,
    *,
    workers: Annotated[
        int, Option(min=1, help="Number of shards to write at the same time.")
    ] = num_cores(),
) -> None:
    """Tokenise the captions of all packed videos into text shards.

    Writes the shards next to the feature shards. A video without captions gets an empty row, and
    training leaves it out; `<target_dir>/<prefix>report.json` lists these videos. Run the command
    again after an interruption to continue.
    """
    settings = _load_settings(config, overrides or [])
    tfeat_dir = tokenise_captions(
        settings.caption_pkl_path,
        settings.target_dir,
        settings.bert_name,
        use_fast=settings.use_fast,
        workers=workers,
    )
    logger.info("done; `dataset.tfeat_dir` of a training YAML is %s", tfeat_dir)


main = Command(tokenize, interrupt_message="run the same command again to continue")
