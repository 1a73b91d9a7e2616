"""Pure decisions about a folder of one's own videos: which captions belong to which, the split, and
settings that fit.

Validation needs a whole batch of videos too, so a small collection gets small batches: an eighth of
the videos, at most the recipe's 64.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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


class CaptionFile(NamedTuple):
    """A caption file of a video."""

    path: Path
    language: Language
    is_named: bool
    """The language is part of the file's name."""

    def __str__(self) -> str:
        """Returns the language, and where it comes from if that is not the name."""
        return self.language.tag + ("" if self.is_named else f" (as {self.path.name} itself says)")


@dataclass
class Pairing:
    """The caption files of videos, and which of them to use."""

    used: dict[str, CaptionFile] = field(default_factory=dict)
    """By video id."""
    unused: dict[str, str] = field(default_factory=dict)
    """By path of another file of a video: why it is not used."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a video has no captions, by id."""
    unwanted: dict[str, set[str]] = field(default_factory=dict)
    """By id of a video that has captions in other languages only: those languages."""
    alone: list[Path] = field(default_factory=list)
    """Files of no video."""


def pair_captions(
    ids: Sequence[str],
    files: Sequence[Path],
    wanted: Sequence[str],
    language_inside: Callable[[Path], Language] = lambda path: UNKNOWN,
) -> Pairing:
    """Chooses the caption file of every video: of its own name, or its name and a language as in
    `<id>.en.vtt`.

    The most wanted language comes first; see `preference`. Then come the exact name, `.vtt`,
    `.srt`, `.json` and the alphabet.

    Args:
        ids: video ids.
        files: caption files.
        wanted: language tags, in order of preference.
        language_inside: reads the language that a file names inside, if its name has none.
    """
    pairing = Pairing()
    known = set(ids)
    found: dict[str, list[CaptionFile]] = {}
    for path in sorted(files):
        owner, language = _owner(path, known)
        if owner is None:
            pairing.alone.append(path)
            continue
        is_named = bool(language.tag)
        file = CaptionFile(path, language if is_named else language_inside(path), is_named)
        found.setdefault(owner, []).append(file)
    names = " or ".join(wanted)
    for video_id in ids:
        ranks: dict[CaptionFile, tuple[int | str, ...]] = {}
        for file in found.get(video_id, []):
            if (place := preference(file.language, wanted)) is None:
                pairing.unused[str(file.path)] = f"its language is {file}, not {names}"
            else:
                naming = [file.path.stem == video_id, file.is_named, True].index(True)
                ending = CAPTION_SUFFIXES.index(file.path.suffix.lower())
                ranks[file] = (*place, naming, ending, str(file.path))
        if ranks:
            chosen, *others = sorted(ranks, key=ranks.__getitem__)
            pairing.used[video_id] = chosen
            reason = f"{chosen.path.name} is preferred"
            pairing.unused |= {str(file.path): reason for file in others}
        elif video_id in found:
            has = sorted({str(file) for file in found[video_id]})
            verb = "is" if len(has) == 1 else "are"
            pairing.missing[video_id] = f"no caption file in {names}; there {verb} {', '.join(has)}"
            pairing.unwanted[video_id] = {file.language.tag for file in found[video_id]}
        else:
            pairing.missing[video_id] = "no caption file"
    return pairing


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
