"""The keys of checkpoints: old names of tensors, and which keys may be on one side only, and for
what use.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

WRAPPER_PREFIX = "mmmodel."


class Use(Enum):
    """The use of a checkpoint, which decides how far its keys may differ from the model's."""

    INFERENCE = "inference"
    START = "start"
    """A training starts from its weights, with a fresh optimizer."""
    RESUME = "resume"
    """An interrupted training continues."""


class Harmless(NamedTuple):
    """Keys that may be on one side only, why, and for which uses."""

    names: re.Pattern[str]
    reason: str
    ignored: frozenset[Use]
    """Uses for which the file may have more than the model."""
    kept: frozenset[Use]
    """Uses for which the model may have more than the file, and keeps its own values."""


HARMLESS = (
    Harmless(
        re.compile(r"(^|\.)position_ids$"),
        "a constant that newer transformers do not store",
        ignored=frozenset(Use),
        kept=frozenset(Use),
    ),
    Harmless(
        re.compile(r"^video_encoder\.classifier\."),
        "the step classifier, which only COIN models have",
        ignored=frozenset({Use.INFERENCE, Use.START}),
        kept=frozenset({Use.START}),  # it learns; scored as it is, it would make random numbers
    ),
)

RENAMED = (
    (re.compile(rf"^{re.escape(WRAPPER_PREFIX)}"), ""),
    (re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),  # BERT converted from TensorFlow
    (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"),
)
"""Old names to present ones, applied in this order."""


def present_name(name: str) -> str:
    """Returns the name that a tensor called `name` in a file has in today's models."""
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name


def may_be_ignored(name: str, use: Use) -> bool:
    """Say whether a file may have `name` when the model does not."""
    return any(harmless.names.search(name) and use in harmless.ignored for harmless in HARMLESS)


def may_be_kept(name: str, use: Use) -> bool:
    """Say whether a model may have `name`, and keep its own values, when the file does not."""
    return any(harmless.names.search(name) and use in harmless.kept for harmless in HARMLESS)


def reason_for(name: str) -> str:
    """Returns why it is harmless that `name` is on one side only."""
    return next(harmless.reason for harmless in HARMLESS if harmless.names.search(name))
