"""Job files: one file of groups becomes a folder of YAMLs, each a base YAML with its group's keys on top."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmpt.config.yaml_files import merge, read_yaml
from mmpt.errors import ConfigError
from mmpt.registry import did_you_mean
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

KEYS = ("project_dir", "base_dir", "run_task", "task_group")


def is_job_file(values: dict[str, Any]) -> bool:
    """True when a YAML describes a folder of jobs, not one job."""
    return values.get("base_dir") is not None


def expand(path: str, values: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the path and content of every YAML that a job file stands for, in its order.

    Args:
        path: the job file, for messages.
        values: its content, includes merged.
    Raises:
        ConfigError: a key is unknown, missing or of the wrong kind, or a base YAML does not exist.
    """
    if problems := _problems(values):
        raise ConfigError(path, problems)
    project, base = values["project_dir"], values["base_dir"]
    for group, settings in (values.get("task_group") or {}).items():
        names = settings.get("task_list") or []
        if not names:
            logger.warning("%s: the group `%s` has no `task_list` and gives no files", path, group)
        extra = {key: value for key, value in settings.items() if key != "task_list"}
        for name in names:
            job = merge(read_yaml(Path("projects", base, name)), extra)
            yield Path("projects", project, name), move_runs(job, f"runs/{base}", f"runs/{project}")


def _problems(values: dict[str, Any]) -> list[str]:
    problems = [
        f"`{key}` is not a key of job files.{did_you_mean(key, list(KEYS))}" for key in values if key not in KEYS
    ]
    for key in ("project_dir", "base_dir"):
        if not _is_below(values.get(key)):
            problems.append(f"`{key}` must be a folder below projects/, but is {values.get(key)!r}.")
    groups = values.get("task_group") or {}
    if not isinstance(groups, dict) or not all(isinstance(settings, dict) for settings in groups.values()):
        return [*problems, "`task_group` must map each group's name to a mapping with `task_list`."]
    for group, settings in groups.items():
        names = settings.get("task_list") or []
        if not isinstance(names, list) or not all(_is_below(name) for name in names):
            problems.append(f"`task_group.{group}.task_list` must be a list of file names, but is {names!r}.")
    return problems


def _is_below(value: Any) -> bool:
    """True for a relative path that stays below the folder it is joined to."""
    if not isinstance(value, str):
        return False
    path = Path(value)
    return path.parts != () and not path.is_absolute() and ".." not in path.parts


def move_runs(value: Any, old: str, new: str) -> Any:
    """Return `value` with `old` replaced by `new` in every text that starts with it, at any depth of mappings.

    Texts inside lists stay as they are.
    """
    if isinstance(value, dict):
        return {key: move_runs(inner, old, new) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith(old):
        return value.replace(old, new)
    return value
