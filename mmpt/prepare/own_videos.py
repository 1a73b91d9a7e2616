"""Pure decisions about a folder of one's own videos: which captions belong to which, the split, and
settings that fit.

Validation needs a whole batch of videos too, so a small collection gets small batches: an eighth of
the videos, at most the recipe's 64.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.media.video_list import VIDEO_SUFFIXES
from mmpt.prepare.captions.language import UNKNOWN, Language, parse_tag, preference
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES
from mmpt.utils.rng import stable_seed

AUDIO_SUFFIXES = {".aac", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"}
MEDIA_SUFFIXES = (VIDEO_SUFFIXES | AUDIO_SUFFIXES) - {".ts"}  # `tea.ts.vtt` is in Tsonga
MAX_BATCH = {"norton": 64, "videoclip": 32}  # videos per batch in the recipes
CANDIDATES_PER_VIDEO = {"norton": 3, "videoclip": 2}  # num_cands / num_video_per_batch in them
BATCH_SHARE = 8  # the split must hold so many batches
MAX_CENTROIDS, EXAMPLES_PER_CENTROID = 512, 48
MAX_WARMUP, WARMUP_SHARE = 1000, 10
MAX_LOG_INTERVAL = 1000


def find_captions(
    ids: Sequence[str], files: Sequence[Path], language_inside: Callable[[Path], Language]
) -> dict[str | None, dict[Path, Language]]:
    """Returns the caption files of every video with their languages, in alphabetical order. Files
    without a video have the key None.

    The file of a video has its name, or its name and a language as in `<id>.en.vtt`.

    Args:
        ids: video ids.
        files: caption files.
        language_inside: returns the language that a file names inside, for names without one.
    """
    known = set(ids)
    found: dict[str | None, dict[Path, Language]] = {}
    for path in sorted(files):
        owner, language = _owner(path, known)
        if owner and not language.tag:
            language = language_inside(path)
        found.setdefault(owner, {})[path] = language
    return found


def choose_captions(files: Mapping[Path, Language], wanted: Sequence[str]) -> Path | None:
    """Returns the caption file of a video to use, or None if none is in a wanted language.

    The most wanted language comes first; see `preference`. Then come the shortest name, `.vtt`
    before `.srt` before `.json`, and the alphabet.

    Args:
        files: in alphabetical order, with their languages.
        wanted: language tags, in order of preference.
    """
    ranks = {}
    for path, language in files.items():
        if rank := preference(language, wanted):
            ranks[path] = (*rank, len(path.stem), CAPTION_SUFFIXES.index(path.suffix.lower()))
    return min(ranks, key=ranks.__getitem__, default=None)


def _owner(path: Path, known: Container[str]) -> tuple[str | None, Language]:
    """Returns the video of a caption file, and the language in the file's name.

    A name may end in the suffix of the file that was transcribed, as in `tea.mp4.srt`.
    """
    if path.stem in known:
        return path.stem, UNKNOWN
    head, tag = path.stem, ""
    for _ in range(2):  # `a.en` has two parts
        head, _, part = head.rpartition(".")
        tag = f"{part}.{tag}" if tag else part
        language = UNKNOWN if f".{tag}".lower() in MEDIA_SUFFIXES else parse_tag(tag)
        if head in known and language:
            return head, language
    return None, UNKNOWN


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
