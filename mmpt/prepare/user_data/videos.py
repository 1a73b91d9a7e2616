"""Decisions about a folder of the user's own videos: captions, split and settings.

All functions are pure. Training and validation need at least one whole batch of videos each, so a
small collection gets small batches: an eighth of the videos, at most as many as in the recipe.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.media.video_list import VIDEO_SUFFIXES
from mmpt.prepare.captions.language import UNKNOWN, Language, parse_tag, preference
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES
from mmpt.utils.rng import stable_seed

AUDIO_SUFFIXES = {
    ".aac",
    ".flac",
    ".m4a",
    ".mp3",
    ".oga",
    ".ogg",
    ".opus",
    ".wav",
    ".wma",
}
# `.ts` is not among them, because `tea.ts.vtt` has captions in Tsonga.
MEDIA_SUFFIXES = (VIDEO_SUFFIXES | AUDIO_SUFFIXES) - {".ts"}
MAX_BATCH = {"norton": 64, "videoclip": 32}  # videos per batch in the recipes
# num_cands divided by num_video_per_batch in the recipes.
CANDIDATES_PER_VIDEO = {"norton": 3, "videoclip": 2}
MIN_BATCHES = 8  # a batch has about an eighth of all videos
MAX_CENTROIDS, EXAMPLES_PER_CENTROID = 512, 48
# The learning rate is warmed up for at most MAX_WARMUP updates, and for at most one in
# WARMUP_FRACTION of all updates.
MAX_WARMUP, WARMUP_FRACTION = 1000, 10
MAX_LOG_INTERVAL = 1000


def find_captions(
    ids: Sequence[str],
    files: Sequence[Path],
    language_inside: Callable[[Path], Language],
) -> dict[str | None, dict[Path, Language]]:
    """Returns the caption files of every video with their languages, in alphabetical order.

    A caption file has the name of its video, or this name and a language, as in `<id>.en.vtt`.
    Files without a video have the key None.

    Args:
        ids: video ids.
        files: caption files.
        language_inside: returns the language that a file's content names. It is called for files
            whose names have no language.
    """
    known = set(ids)
    found: dict[str | None, dict[Path, Language]] = {}
    for path in sorted(files):
        video_id, language = _match_video(path, known)
        if video_id and not language.tag:
            language = language_inside(path)
        found.setdefault(video_id, {})[path] = language
    return found


def possible_ids(files: Sequence[Path]) -> set[str]:
    """Returns all ids that the videos of caption files may have.

    An id is the beginning of a file's name up to any dot. Ids that end like a media file are left
    out, because `find_captions` also accepts the ids without this ending.

    Args:
        files: caption files.
    """
    ids: set[str] = set()
    for path in files:
        parts = path.name.split(".")
        ids.update(".".join(parts[:number]) for number in range(1, len(parts)))
    endings = tuple(MEDIA_SUFFIXES)
    return {each for each in ids if not each.lower().endswith(endings)}


def choose_captions(
    files: Mapping[Path, Language], wanted: Sequence[str]
) -> Path | None:
    """Returns the caption file to use for a video, or None if none is in a wanted language.

    Files are compared by language (see `preference`), then by the length of the name (shorter
    first), by suffix (`.vtt`, `.srt`, `.json`), and alphabetically.

    Args:
        files: the caption files of the video in alphabetical order, with their languages.
        wanted: language tags, in order of preference.
    """
    ranks = {}
    for path, language in files.items():
        language_rank = preference(language, wanted)
        if language_rank is not None:
            suffix_rank = CAPTION_SUFFIXES.index(path.suffix.lower())
            ranks[path] = (*language_rank, len(path.stem), suffix_rank)
    return min(ranks, key=ranks.__getitem__, default=None)


def _match_video(path: Path, known: Container[str]) -> tuple[str | None, Language]:
    """Returns the id of the video that a caption file belongs to, and the language in its name.

    The name may also contain the suffix of the file that was transcribed, as in `tea.mp4.srt`.

    Args:
        known: the ids of all videos.
    """
    if path.stem in known:
        return path.stem, UNKNOWN
    # Try the last part of the name as the language tag, then the last two parts: `a.en` is a tag.
    for num_parts in (1, 2):
        video_id, *parts = path.stem.rsplit(".", num_parts)
        if video_id not in known:
            continue
        tag = ".".join(parts)
        if f".{tag}".lower() in MEDIA_SUFFIXES:
            return video_id, UNKNOWN
        language = parse_tag(tag)
        if language:
            return video_id, language
    return None, UNKNOWN


def choose_batch_size(num_videos: int, recipe: str) -> int:
    """Returns V, the number of videos per batch.

    It is an eighth of all videos, but at least 2 if there are 4 videos or more, and at most the
    number in the recipe.

    Args:
        num_videos: number of all videos.
        recipe: a key of `MAX_BATCH`.
    """
    smallest = 2 if num_videos >= 4 else 1
    wanted = max(smallest, num_videos // MIN_BATCHES)
    return min(wanted, MAX_BATCH[recipe])


def split_ids(
    ids: Sequence[str], val_share: float, batch: int
) -> tuple[list[str], list[str]]:
    """Returns the training ids and the validation ids, each in the given order.

    Validation videos are chosen by a hash of their ids, so adding videos moves few others between
    the splits.

    Args:
        ids: video ids.
        val_share: wanted share of validation videos.
        batch: V, videos per batch. Each split gets at least V videos.
    Raises:
        DataError: there are fewer than two videos.
    """
    if len(ids) < 2:
        raise DataError(
            "at least 2 videos with captions and features are needed, one to train on and one to "
            f"validate on, but there are {len(ids)}."
        )
    # Each split gets at least one batch.
    num_wanted = round(val_share * len(ids))
    max_val = len(ids) - batch
    num_val = min(max(num_wanted, batch), max_val)
    by_hash = sorted(ids, key=lambda video_id: stable_seed("held out", video_id))
    held_out = set(by_hash[:num_val])
    train: list[str] = []
    val: list[str] = []
    for video_id in ids:
        side = val if video_id in held_out else train
        side.append(video_id)
    return train, val


def fitting_settings(
    num_train: int, batch: int, recipe: str, max_epoch: int
) -> dict[str, dict[str, Any]]:
    """Returns the settings that depend on the number of videos, by section of the YAML.

    Args:
        num_train: number of training videos.
        batch: V, videos per batch; at most `num_train`.
        recipe: a key of `MAX_BATCH`.
        max_epoch: number of epochs of the recipe.
    """
    assert 1 <= batch <= num_train
    updates_per_epoch = num_train // batch
    num_updates = updates_per_epoch * max_epoch
    num_cands = CANDIDATES_PER_VIDEO[recipe] * batch
    num_centroids = min(MAX_CENTROIDS, num_train // EXAMPLES_PER_CENTROID)
    log_interval = min(MAX_LOG_INTERVAL, updates_per_epoch // 2)
    num_warmup = min(MAX_WARMUP, num_updates // WARMUP_FRACTION)
    return {
        "dataset": {"num_video_per_batch": batch},
        "retrieval": {
            "num_cands": min(num_cands, num_train),
            "centroids": max(1, num_centroids),
        },
        "common": {"log_interval": max(1, log_interval)},
        "optimization": {"warmup_updates": max(1, num_warmup)},
    }
