"""Curves of a training run: fairseq's event files beside the checkpoint, and the hardness of its retrieved batches.

Event files are read with tensorboardX's own message classes: a record is its length (8 bytes), a checksum (4), the
message and a checksum (4). A file that a crash cut off is read as far as it goes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.reporting.charts import COLOURS, GREY, Line, line_chart
from mmpt.reporting.markup import Section, escape, note, tag
from mmpt.reporting.run import Run
from mmpt.retrieval import HARDNESS_LOG

# What fairseq logs about speed and bookkeeping; all else is a loss term or a metric of the loss.
NOT_CURVES = {
    *("bsz", "wps", "ups", "wpb", "lr", "gnorm", "clip", "clips_per_s", "train_wall", "wall", "loss_scale"),
    *("memory_gb", "peak_gb", "gb_free", "best_loss", "videos_per_s", "tflops", "share_of_peak", "data_wait"),
    *("minutes_left", "_updates_left"),
}
_SPLITS = {"train_inner": "training", "valid": "validation"}
_MOST_RECORD = 1 << 28
_LOSS_DIGITS = 1e-3
"""Precision to which the loss is logged (its terms have a digit more)."""


class Curve(NamedTuple):
    """A number over updates."""

    steps: list[int]
    values: list[float]


def read_curves(save_dir: str | Path, split: str) -> dict[str, Curve]:
    """Return the scalars in `<save_dir>/*/<split>/events*` by name; later files replace what they repeat.

    Args:
        split: `train_inner` or `valid`, as fairseq names the folders.
    """
    files = [list(_events(path)) for path in Path(save_dir).glob(f"*/{split}/events*")]
    merged: dict[str, dict[int, float]] = {}
    for events in sorted((events for events in files if events), key=lambda events: events[0].wall_time):
        first = min((event.step for event in events if _scalars(event)), default=0)
        merged = {name: {s: v for s, v in points.items() if s < first} for name, points in merged.items()}
        for event in events:
            for name, value in _scalars(event):
                merged.setdefault(name, {})[event.step] = value
    return {
        name: Curve(sorted(points), [points[s] for s in sorted(points)]) for name, points in merged.items() if points
    }


def read_hardness(save_dir: str | Path) -> list[dict[str, float]]:
    """Return the lines of the hardness log by epoch, of each epoch the last; none if there is no log."""
    try:
        lines = (Path(save_dir) / "retri" / HARDNESS_LOG).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    by_epoch: dict[int, dict[str, float]] = {}
    for line in lines:
        try:
            values = json.loads(line)
            by_epoch[int(values["epoch"])] = values
        except (ValueError, TypeError, KeyError):  # a line that a crash cut off
            continue
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def training_section(run: Run) -> Section | None:
    """Return the curves of every checkpoint that lies beside its training's logs; None where no log is found."""
    blocks, silent = [], []
    for folder in dict.fromkeys(Path(row["checkpoint"]).parent for row in run.rows):
        charts = [*loss_charts(folder), *hardness_charts(folder)]
        if charts:
            blocks.append(tag("h3", escape(folder)) + tag("div", "".join(charts), class_="charts"))
        else:
            silent.append(str(folder))
    if not blocks:
        return None
    rest = note(f"No training logs in {', '.join(silent)}.") if silent else ""
    return Section(
        "Training",
        "".join(blocks) + rest,
        "Terms and metrics of the loss over updates: the mean since the last log line, and on the validation set after "
        "each epoch. Hardness is how similar the videos of a retrieved batch are.",
    )


def loss_charts(save_dir: Path) -> list[str]:
    """Return a chart per loss term and metric that changes, the loss first."""
    splits = {title: read_curves(save_dir, split) for split, title in _SPLITS.items()}
    names = dict.fromkeys(name for curves in splits.values() for name in curves if name not in NOT_CURVES)
    if any(
        _same(curves.get("loss"), curves.get(name)) for curves in splits.values() for name in names if name != "loss"
    ):
        names.pop("loss", None)  # there is one term, and it is the loss
    charts = []
    for name in sorted(names, key=lambda name: (name != "loss", name in ("accuracy", "temperature"), name)):
        found = {title: curves[name] for title, curves in splits.items() if name in curves}
        if len({value for curve in found.values() for value in curve.values}) < 2:
            continue
        colours = dict(zip(_SPLITS.values(), COLOURS, strict=False))
        lines = [
            Line(name=title, xs=curve.steps, ys=curve.values, colour=colours[title], dots=title != "training")
            for title, curve in found.items()
        ]
        charts.append(line_chart(name.replace("_", "-"), lines, "updates"))
    return charts


def _same(loss: Curve | None, term: Curve | None) -> bool:
    """Say whether a term is the whole loss, which is logged with fewer digits."""
    if loss is None or term is None or loss.steps != term.steps:
        return False
    return max(abs(a - b) for a, b in zip(loss.values, term.values, strict=True)) <= _LOSS_DIGITS


def hardness_charts(save_dir: Path) -> list[str]:
    """Return the chart of retrieval hardness, or none when no refresh was logged."""
    rows = [row for row in read_hardness(save_dir) if "mean_cosine" in row]
    if not rows:
        return []
    lines = [
        Line(
            name=title,
            xs=[row["epoch"] for row in rows if key in row],
            ys=[row[key] for row in rows if key in row],
            colour=colour,
            dots=True,
        )
        for key, title, colour in (("mean_cosine", "in a batch", COLOURS[0]), ("random_mean_cosine", "at random", GREY))
    ]
    return [line_chart("retrieval hardness: mean cosine of two videos", lines, "epoch")]


def _events(path: Path) -> Iterator[Any]:
    """Yield the messages of an event file, as far as it is sound."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # deferred: a tenth of a second
    from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped]

    try:
        content = path.read_bytes()
    except OSError:
        return
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        if length > _MOST_RECORD or at + 12 + length > len(content):
            return
        try:
            event = Event.FromString(content[at + 12 : at + 12 + length])
        except DecodeError:
            return
        yield event
        at += 16 + length


def _scalars(event: Any) -> list[tuple[str, float]]:
    return [(value.tag, value.simple_value) for value in event.summary.value if value.HasField("simple_value")]
