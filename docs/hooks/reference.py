"""Pages of the reference, made at every build: YAML keys, commands, and the Python API.

The keys come from the pydantic models that check a YAML, the options of a command from typer, and
the API from the packages' stubs, which list their public names.
"""

import ast
import importlib
import re
import typing
from collections.abc import Sequence
from html import escape
from inspect import cleandoc
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mmpt.cli.main import COMMANDS
from mmpt.config import schema
from mmpt.config.fairseq import settings_model
from mmpt.evaluators import PREDICTORS
from mmpt.losses import LOSSES
from mmpt.models import MODELS
from mmpt.processors import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.registry import Registry
from mmpt.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}
KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "object": "mapping",
}
PROCESSORS = (META_PROCESSORS, VIDEO_PROCESSORS, TEXT_PROCESSORS, ALIGNERS)
CLASSES: dict[str, tuple[Registry[Any], ...]] = {
    "dataset": (*PROCESSORS, TASKS, PREDICTORS),
    "model": (MODELS,),
    "loss": (LOSSES,),
}
"""Section -> the classes that read it, and that may declare further keys of it."""
KEYS_HEAD = """# YAML keys

Every key that a YAML file may have, with the values that it takes and its default. A key without a
default is not set unless the YAML sets it. `null` stands for the default. All mistakes in a file
are reported at once, each with the path of its key and the nearest known name. Keys can also be
refused because of each other; the message then names both.

Two things work in every YAML. `includes: other.yaml` starts from another file: mappings are merged
key by key, everything else is replaced. `${section.key}` stands for the value of another key. On
the command line, `section.key=value` after the YAML changes a key for one run.
"""
RETRIEVAL_HEAD = (
    "Write these keys at the top level of the YAML, or in a section `retrieval`."
)
FAIRSEQ_HEAD = """fairseq's own options, by group, with fairseq's types and the narrower bounds of
MMPT. fairseq documents [what they do][fairseq]. The launcher sets the options of processes and
devices; a YAML that sets one is refused.

[fairseq]: https://fairseq.readthedocs.io/en/latest/command_line_tools.html"""
COMMANDS_HEAD = """# Commands

`mmpt --help` lists the commands, and `mmpt COMMAND --help` describes one. A mistake in the input
ends a command with one message and exit code 2.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the reference."""
    pages = {"configuration": keys_page(), "commands": commands_page()}
    for package in sorted((ROOT / "mmpt").iterdir()):
        if stubs := sorted(package.rglob("__init__.pyi")):
            pages[package.name] = api_page(package, stubs)
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def keys_page() -> str:
    """Returns the page of all YAML keys."""
    parts = [KEYS_HEAD, "## Top level\n", keys_table(schema.Settings)]
    for key, field in schema.Settings.model_fields.items():
        section = section_of(field)
        if section is not None:
            head = (
                RETRIEVAL_HEAD if section is schema.RetrievalConfig else doc_of(section)
            )
            parts += section_parts(key, section, head)
            parts += class_keys(key, section)
    groups = section_of(settings_model(import_fairseq=True).model_fields["fairseq"])
    assert groups is not None
    parts += ["## `fairseq`\n", FAIRSEQ_HEAD + "\n"]
    for key, field in groups.model_fields.items():
        group = section_of(field)
        assert group is not None
        parts += [f"### `fairseq.{key}`\n", keys_table(group)]
    return "\n".join(parts)


def section_parts(path: str, section: type[BaseModel], head: str) -> list[str]:
    """Returns heading and table of a section, and of the sections in it."""
    parts = [f"## `{path}`\n", head + "\n", keys_table(section)]
    for key, field in section.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            parts += section_parts(f"{path}.{key}", inner, doc_of(inner))
    return parts


def class_keys(path: str, shared: type[BaseModel]) -> list[str]:
    """Returns a table of the keys of a section that only some classes read, and sections in it.

    A class declares them in a model `Config`, which extends the model of the section.
    """
    # Cells of a key -> names of its classes.
    rows: dict[tuple[str, ...], list[str]] = {}
    # Path of a section among the keys -> its model.
    inner: dict[str, type[BaseModel]] = {}
    for registry in CLASSES.get(path, ()):
        for name in sorted(registry):
            config = getattr(registry.get(name, path), "Config", shared)
            schemas = config.model_json_schema()["properties"]
            for key in config.model_fields.keys() - shared.model_fields.keys():
                cells = key_cells(key, config.model_fields[key], schemas[key])
                rows.setdefault(cells, []).append(f"`{name}`")
                section = section_of(config.model_fields[key])
                if section is not None:
                    inner[f"{path}.{key}"] = section
    if not rows:
        return []
    table = ["| key | values | default | | read by |", "|---|---|---|---|---|"]
    for cells in sorted(rows):
        table.append(f"| {' | '.join([*cells, ', '.join(rows[cells])])} |")
    head = (
        "These keys are known only if the YAML names one of the classes that read them."
    )
    parts = [
        f"### Keys of single classes in `{path}`\n",
        head + "\n",
        "\n".join(table) + "\n",
    ]
    for name, section in inner.items():
        parts += section_parts(name, section, doc_of(section))
    return parts


def key_cells(key: str, field: FieldInfo, value: dict[str, Any]) -> tuple[str, ...]:
    """Returns name, values, default and description of a key as cells of a table.

    Args:
        value: the JSON schema of the key.
    """
    texts = (
        f"`{key}`",
        values_text(value),
        default_text(field),
        field.description or "",
    )
    return tuple(map(to_cell, texts))


def doc_of(section: type[BaseModel]) -> str:
    """Returns the docstring of a section's model."""
    return cleandoc(section.__doc__ or "")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Returns the model of a key that holds a section; None for other keys."""
    for kind in typing.get_args(field.annotation) or (field.annotation,):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def keys_table(section: type[BaseModel]) -> str:
    """Returns a table of a section's keys, and a list of its keys without effect."""
    schemas = section.model_json_schema()["properties"]
    is_described = any(field.description for field in section.model_fields.values())
    columns = ("key", "values", "default", "") if is_described else ("key", "values")
    rows = [columns, ("---",) * len(columns)]
    inert = []
    for key, field in section.model_fields.items():
        if section_of(field) is not None or key == "fairseq":
            continue
        if schema.INERT in field.metadata:
            inert.append(f"`{key}`")
            continue
        rows.append(key_cells(key, field, schemas[key])[: len(columns)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if inert:
        lines += [
            "",
            f"Keys of released YAMLs that have no effect: {', '.join(inert)}.",
        ]
    return "\n".join(lines) + "\n"


def values_text(value: dict[str, Any]) -> str:
    """Returns what a JSON schema accepts, in words."""
    if "anyOf" in value:
        options = [
            values_text(one) for one in value["anyOf"] if one.get("type") != "null"
        ]
        return " or ".join(dict.fromkeys(options))
    if "const" in value or "enum" in value:
        return " or ".join(
            f"`{to_yaml(one)}`" for one in value.get("enum", [value.get("const")])
        )
    if value.get("type") == "array":
        return f"list of {values_text(value.get('items', {}))}"
    bounds = [
        f"{sign} {value[name]:g}" for name, sign in BOUNDS.items() if name in value
    ]
    return " ".join([KINDS.get(value.get("type", ""), "any"), *bounds])


def default_text(field: FieldInfo) -> str:
    """Returns a key's default as a YAML has it; "" for none, and if it depends on other keys."""
    is_set = field.default_factory is None and field.default not in (None, ())
    return f"`{to_yaml(field.default)}`" if is_set else ""


def to_yaml(value: Any) -> str:
    """Returns a plain value as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def to_cell(text: str) -> str:
    """Returns a text of one paragraph as a cell of a table."""
    return to_text(" ".join(text.split())).replace("|", r"\|")


def to_text(text: str) -> str:
    """Returns plain text as Markdown: what looks like an HTML tag is text, except in code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else escape(part, quote=False) for part in parts
    )


def commands_page() -> str:
    """Returns the page of all commands, by panel."""
    parts = [COMMANDS_HEAD]
    for panel in dict.fromkeys(panel for _, panel, _ in COMMANDS.values()):
        parts.append(f"## {panel}\n")
        names = [name for name, entry in COMMANDS.items() if entry[1] == panel]
        parts += map(command_section, names)
    return "\n".join(parts)


def command_section(name: str) -> str:
    """Returns usage, help, arguments and options of a command."""
    module = importlib.import_module(f"mmpt.cli.{COMMANDS[name][0]}")
    command = typer.main.get_command(module.main.app)
    context = command.context_class(command, info_name=f"mmpt {name}")
    usage = " ".join([f"mmpt {name}", *command.collect_usage_pieces(context)])
    parts = [
        f"### `mmpt {name}`",
        f"```text\n{usage}\n```",
        to_text(command.help or ""),
    ]
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and parameter.name != "help":
            # A range such as [x>=1] is no link.
            help_text = to_cell(record[1]).replace("[", r"\[")
            rows.append(f"| {to_cell(f'`{record[0]}`')} | {help_text} |")
    if rows:
        parts.append("\n".join(["| argument or option | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def api_page(package: Path, stubs: Sequence[Path]) -> str:
    """Returns the page of a package, with a directive for each public name.

    Args:
        stubs: the `__init__.pyi` of the package and of its folders, which list the public names.
    """
    source = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    parts = [f"# mmpt.{package.name}", ast.get_docstring(source) or ""]
    for stub in stubs:
        folder = ".".join(stub.parent.relative_to(ROOT).parts)
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                parts += [
                    f"::: {folder}.{node.module}.{name.name}" for name in node.names
                ]
    return "\n\n".join(parts) + "\n"
