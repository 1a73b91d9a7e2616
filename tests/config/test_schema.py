"""Tests of the schema, and of the conversion of values of a YAML to values of its fields."""

import copy
import json
import random
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mmpt.config import RetrievalConfig, load_config, schema
from mmpt.config.yaml_files import read_yaml
from mmpt.errors import ConfigError

SECTIONS = [each for each in vars(schema).values() if isinstance(each, type)]


@pytest.mark.parametrize(
    "section",
    [each for each in SECTIONS if issubclass(each, schema.Settings | schema.Section)],
)
def test_every_key_is_described_by_a_sentence(section: type[BaseModel]) -> None:
    described = {
        name: field.description or "" for name, field in section.model_fields.items()
    }
    assert [name for name, text in described.items() if not text.endswith(".")] == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("num_cands", 3.0, 3),
        ("num_cands", "3", 3),
        ("num_cands", "1e3", 1000),
        ("recall", 1, 1.0),
        ("recall", "1e-05", 1e-05),
        ("nprobe", "auto", "auto"),
        ("nprobe", "12", 12),
        ("centroids", None, 512),
    ],
)
def test_accepted_values(key: str, value: Any, expected: Any) -> None:
    result = getattr(RetrievalConfig(**{key: value}), key)
    assert result == expected
    assert type(result) is type(expected)


def test_sections_are_frozen_and_copies_are_checked() -> None:
    config = RetrievalConfig(recall=0.3)
    with pytest.raises(ValidationError, match="frozen"):
        config.recall = 0.4  # type: ignore[misc]
    assert (config.replace(recall=0.4).recall, config.recall) == (0.4, 0.3)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        config.replace(recall=2)


def leaves(values: dict[str, Any], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Returns the path of every value that is no mapping."""
    paths = []
    for key, value in values.items():
        paths += leaves(value, (*at, key)) if isinstance(value, dict) else [(*at, key)]
    return paths


@pytest.mark.slow
def test_mutated_settings_are_reported(tmp_path) -> None:
    """A misspelt key, a value of another type, or a number out of bounds, one at a time."""
    rng = random.Random(0)
    good = read_yaml("projects/retri/norton/how2_pretrain.yaml")
    del good["slurm_config"]  # may have any value
    path = tmp_path / "run.yaml"
    for _ in range(60):
        values = copy.deepcopy(good)
        *sections, key = rng.choice(leaves(values))
        section = values
        for name in sections:
            section = section[name]
        dotted = ".".join([*sections, key])
        kind = rng.choice(["misspelt", "mapping", "negative"])
        is_number = type(section[key]) in (int, float)
        if kind == "negative" and is_number and not key.startswith("keep_"):
            # -1 keeps all.
            section[key] = -1 - section[key]
            expected = f"`{dotted}` must be "
        elif kind == "misspelt":
            section[key[:-1] + "qq"] = section.pop(key)
            dotted = dotted[:-1] + "qq"
            expected = f"`{dotted}` is not a known key. Did you mean `{key}`?"
        else:
            section[key] = {"a": 1}
            expected = f"`{dotted}` must be "
        path.write_text(json.dumps(values))  # JSON is YAML
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        first = caught.value.problems[0]
        assert first.startswith(expected), (kind, first)
        assert kind == "misspelt" or "but is" in first
