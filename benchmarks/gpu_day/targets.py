"""The targets of a run, and the time of the whole recipe, computed from measured values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

NUM_VIDEOS = 1_200_000
NUM_UPDATES = NUM_VIDEOS // 64
"""Updates of an epoch on one GPU: batches of 64 videos."""
NUM_CLIPS = NUM_VIDEOS * 16
"""Clips of an embedding pass."""
NUM_EPOCHS = 6


@dataclass(frozen=True)
class Target:
    """A value and its bound."""

    what: str
    value: float | None
    """None if it was not measured."""
    unit: str
    bound: float
    is_least: bool = False
    """The value must be at least the bound. Otherwise, at most."""

    @property
    def is_met(self) -> bool | None:
        """Whether the value is within the bound; None if it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.is_least else self.value <= self.bound


def compare(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the targets of a report as dictionaries."""
    values: dict[str, Any] = {}
    for part in parts.values():
        values |= part["values"]
    steps_ms = {}
    for name, value in values.items():
        if name.startswith("step, ours") and name.endswith(": ms"):
            steps_ms[name.removesuffix(": ms")] = value
    # Steps with dropout are for the whole recipe. Steps in chunks recompute activations. The other
    # steps keep all activations, without dropout.
    with_dropout = {name for name in steps_ms if "dropout" in name}
    chunked = {name for name in steps_ms if "chunks" in name}
    kept = set(steps_ms) - chunked - with_dropout
    fastest = min(kept, key=steps_ms.__getitem__, default=None)
    step_ms = steps_ms.get(fastest)
    plain_ms = values.get("step, plain float16: ms")
    recipe_ms = min((steps_ms[name] for name in with_dropout), default=None)
    times = plain_ms / step_ms if plain_ms and step_ms else None
    targets = [
        Target(f"step ({fastest})", step_ms, "ms", 40),
        Target("step, times faster than plain", times, "times", 4, is_least=True),
        Target("peak memory of a step", _least(values, kept), "GB", 16),
        Target("peak memory, checkpointed", _least(values, chunked), "GB", 8),
        Target("exact search", values.get("refresh, search: s"), "s", 5),
        Target("whole recipe", whole_hours(values, recipe_ms), "hours", 1.25),
    ]
    found = []
    for target in targets:
        found.append(asdict(target) | {"is_met": target.is_met})
    return found


def _least(values: Mapping[str, Any], names: set[str]) -> float | None:
    """Returns the lowest peak memory of some steps in GB; None if it was not measured."""
    peaks = [values.get(f"{name}: peak GB") for name in names]
    return min((peak for peak in peaks if peak), default=None)


def whole_hours(values: Mapping[str, Any], step_ms: float | None) -> float | None:
    """Returns the hours of the whole recipe, or None if a measurement is missing.

    An epoch is a refresh and its updates. An update copies its batch to the GPU and runs a step.
    Validation and checkpoints are left out.

    Args:
        step_ms: time of a step with dropout.
    """
    parts_s = [
        values.get(f"refresh, {name}: s") for name in ("index", "search", "plan")
    ]
    rate = values.get("embed: clips/s")
    copy_ms = values.get("step, copy of a batch: ms")
    if None in (*parts_s, rate, step_ms, copy_ms):
        return None
    refresh_s = sum(parts_s) + NUM_CLIPS / rate
    updates_s = NUM_UPDATES * (step_ms + copy_ms) / 1000
    return NUM_EPOCHS * (refresh_s + updates_s) / 3600


def table(targets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each target."""
    lines = []
    for target in targets:
        words = "at least" if target["is_least"] else "at most"
        bound = f"{words} {target['bound']} {target['unit']}"
        if target["value"] is None:
            lines.append(f"   {target['what']}: not measured; target: {bound}")
            continue
        verdict = "met" if target["is_met"] else "NOT met"
        value = f"{target['value']:.3g} {target['unit']}"
        lines.append(f"   {target['what']}: {value}; target: {bound}, {verdict}")
    return lines
