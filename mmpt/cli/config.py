"""`mmpt config`: prints the settings of a YAML with their origins, or compares two YAMLs."""

import json
import math
import os
from collections.abc import Sequence
from typing import Annotated, Any

from rich.console import Console
from rich.text import Text
from typer import Argument, Option

from mmpt.cli.main import Command, Overrides
from mmpt.cli.output import print_table
from mmpt.config import RunConfig, load_config
from mmpt.config.origins import find_origins, key_lines, leaves
from mmpt.config.yaml_files import to_yaml
from mmpt.errors import LaunchError

COMMENT_COLUMN = 60
"""Column of the origins. They are further right after longer lines."""


def config(
    yaml: Annotated[
        str | None, Argument(metavar="YAML", help="A training or evaluation YAML.")
    ] = None,
    overrides: Overrides = None,
    *,
    diff: Annotated[
        str | None,
        Option(
            metavar="YAML",
            help="A second YAML to compare with. Prints the keys whose values differ, with the "
            "values of this YAML first. Without YAML: prints what the overrides change in this "
            "YAML.",
        ),
    ] = None,
) -> None:
    """Print the settings of a YAML, with defaults, and where each value is from.

    The origin is a line of the YAML or of a file that it includes, an override, or a default. The
    output is a YAML that can be used in place of the file. `--diff A B` prints the keys whose
    values differ, and overrides then apply to B. `--diff A key=value` prints what the override
    changes in A. Checks the settings, but reads no data.
    """
    args = [*filter(None, [yaml]), *(overrides or [])]
    if diff is not None and args and "=" in args[0] and not os.path.exists(args[0]):
        args.insert(0, diff)
    if not args:
        raise LaunchError(
            "`mmpt config` needs a YAML, and with `--diff` a second one or overrides: "
            "mmpt config --diff A.yaml B.yaml."
        )
    path, *changes = args
    settings = load_config(path, changes)
    if diff is None:
        print_settings(settings, changes)
    else:
        print_difference(load_config(diff), settings, changes)


def print_settings(settings: RunConfig, overrides: Sequence[str]) -> None:
    """Prints a YAML with a comment for each value: its origin."""
    values = settings.to_dict()
    origins = find_origins(settings.path, overrides, values)
    text = to_yaml(values, width=math.inf)
    comments = {}
    for key, (_, number) in key_lines(text).items():
        if key in origins:
            comments[number] = f"  # {origins[key]}"
    console = Console(soft_wrap=True)
    for number, line in enumerate(text.splitlines(), start=1):
        comment = comments.get(number, "")
        left = line.ljust(COMMENT_COLUMN) if comment else line
        console.print(Text(left) + Text(comment, style="dim"))


def print_difference(
    first: RunConfig, second: RunConfig, changes: Sequence[str]
) -> None:
    """Prints a table of the keys whose values differ.

    Args:
        changes: the overrides of the second YAML.
    """
    values = [leaves(each.to_dict(whole=True)) for each in (first, second)]
    rows = []
    for key in values[0] | values[1]:
        cells = [_cell(each[key]) if key in each else "not set" for each in values]
        if cells[0] != cells[1]:
            rows.append([".".join(key), *cells])
    if rows:
        title = " ".join([second.path, *changes])
        print_table(("key", first.path, title), rows)
    else:
        print("Both YAMLs give the same settings.")


def _cell(value: Any) -> str:
    """Returns a value as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


main = Command(config, interrupt_message="run it again")
