"""Pure decisions about a folder of one's own videos: which captions belong to which, the split, and
settings that fit.

Validation needs a whole batch of videos too, so a small collection gets small batches: an eighth of
the videos, at most the recipe's 64.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES
from mmpt.utils.rng import stable_seed

# `.en`, `.en-US`, `.en-orig`, as downloaders append.
LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}(-[A-Za-z0-9]+)*$")
MAX_BATCH = {"norton": 64, "videoclip": 32}  # videos per batch in the recipes
CANDIDATES_PER_VIDEO = {"norton": 3, "videoclip": 2}  # num_cands / num_video_per_batch in them
BATCH_SHARE = 8  # the split must hold so many batches
MAX_CENTROIDS, EXAMPLES_PER_CENTROID = 512, 48
MAX_WARMUP, WARMUP_SHARE = 1000, 10
MAX_LOG_INTERVAL = 1000


def pair_captions(ids: Sequence[str], files: Sequence[Path]) -> tuple[dict[str, Path], list[Path]]:
    """Gives every video its caption file: of its own name, or its name and a language as in
    `<id>.en.vtt`.

    Where a video has several, the exact name comes first, then `.vtt`, `.srt`, `.json`, then the
    alphabet.

    Args:
        ids: video ids.
        files: caption files.
    Returns:
        The caption files by video id, and those that belong to no video.
    """
    known = set(ids)

    def rank(path: Path) -> tuple[bool, int, str]:
        return path.stem not in known, CAPTION_SUFFIXES.index(path.suffix.lower()), path.name

    found: dict[str, Path] = {}
    alone = []
    for path in sorted(files, key=rank):
        owner = path.stem if path.stem in known else LANGUAGE.sub("", path.stem)
        if owner in known:
            found.setdefault(owner, path)
        else:
            alone.append(path)
    return {name: found[name] for name in ids if name in found}, sorted(alone)


def batch_videos(num_videos: int, recipe: str) -> int:
    """Return V, the videos of a batch: an eighth of all, at least 2 where there are 4, at most the
    recipe's.
    """
    least = 2 if num_videos >= 4 else 1
    return min(max(num_videos // BATCH_SHARE, least), MAX_BATCH[recipe])


def split_ids(ids: Sequence[str], val_share: float, batch: int) -> tuple[list[str], list[str]]:
    """Return training and validation ids, each in the given order; both hold at least `batch`.

    Who is held out depends on the ids alone, so a video seldom changes sides when others are added.

    Args:
        val_share: wanted share of validation videos.
        batch: V.
    Raises:
        DataError: fewer than two videos.
    """
    if len(ids) < 2:
        raise DataError(
            "at least 2 videos with captions are needed, one to train on and one to validate on, "
            f"but there are {len(ids)}."
        )
    num_val = min(max(round(val_share * len(ids)), batch), len(ids) - batch)
    held_out = set(sorted(ids, key=lambda name: stable_seed("held out", name))[:num_val])
    train = [name for name in ids if name not in held_out]
    return train, [name for name in ids if name in held_out]


def fitting_settings(
    num_train: int, batch: int, recipe: str, max_epoch: int
) -> dict[str, dict[str, Any]]:
    """Return the settings that depend on the number of videos, as `dataset`, `optimization`,
    `common`, `retrieval`.

    Args:
        num_train: training videos.
        batch: V, at most `num_train`.
        max_epoch: epochs of the recipe.
    """
    assert 1 <= batch <= num_train
    per_epoch = num_train // batch
    return {
        "dataset": {"num_video_per_batch": batch},
        "retrieval": {
            "num_cands": max(batch, min(CANDIDATES_PER_VIDEO[recipe] * batch, num_train)),
            "centroids": max(1, min(MAX_CENTROIDS, num_train // EXAMPLES_PER_CENTROID)),
        },
        "common": {"log_interval": max(1, min(MAX_LOG_INTERVAL, per_epoch // 2))},
        "optimization": {
            "warmup_updates": max(1, min(MAX_WARMUP, per_epoch * max_epoch // WARMUP_SHARE))
        },
    }
