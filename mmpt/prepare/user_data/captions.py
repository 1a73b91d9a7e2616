"""Reads the captions of a folder of the user's own videos, and reports what cannot be used."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList
from mmpt.prepare.captions.language import Language
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES, read_captions, read_language
from mmpt.prepare.user_data.videos import choose_captions, find_captions
from mmpt.utils.log import get_logger, progress

Report = dict[str, Any]
"""The contents of `report.json`; see `new_report`."""
MAX_LISTED = 10
"""Unused caption files that the log names. `report.json` lists all of them."""
logger = get_logger("prepare")


def new_report() -> Report:
    """Returns an empty report.

    A key such as `videos_without_captions` holds the reasons by video id or path, or a list of
    paths. `captions_used` holds the caption file of each video.
    """
    return {
        "videos_without_captions": {},
        "videos_without_features": {},
        "videos_misnamed": [],
        "videos_damaged": {},
        "captions_without_video": [],
        "captions_repaired": {},
        "captions_unused": {},
        "captions_used": {},
    }


def gather_captions(
    folder: Path, ids: Sequence[str], wanted: Sequence[str], report: Report
) -> dict[str, CaptionList]:
    """Returns the captions of every video that has captions in a wanted language, by video id.

    Args:
        folder: folder of caption files; its sub-folders are read too, one level.
        ids: video ids.
        wanted: language tags, in order of preference.
        report: gets the files that cannot be used, with reasons.
    """
    used = _choose_files(folder, ids, wanted, report)
    captions = {}
    num_used: Counter[str] = Counter()  # language -> number of files
    for video_id, file in progress(
        used.items(), len(used), "caption files read", logger
    ):
        path, language = file
        try:
            found, notes = read_captions(path)
        except DataError as err:
            report["videos_without_captions"][video_id] = str(err)
            continue
        if notes:
            repairs = f"{path}: {'; '.join(notes)}"
            report["captions_repaired"][video_id] = repairs
            logger.warning("%s", repairs)
        if not found["start"]:
            report["videos_without_captions"][video_id] = (
                f"{path}: no caption with text"
            )
            continue
        captions[video_id] = found
        report["captions_used"][video_id] = str(path)
        num_used[str(language)] += 1
    logger.info("caption files used: %s", _counts(num_used) or "none")
    return captions


def _choose_files(
    folder: Path, ids: Sequence[str], wanted: Sequence[str], report: Report
) -> dict[str, tuple[Path, Language]]:
    """Returns the caption file to use and its language, by video id.

    A video may have several files: other languages, or copies in other formats. The first of the
    wanted languages that it has is used, and `report` gets the other files.
    """
    files = find_captions(ids, caption_files(folder), read_language)
    report["captions_without_video"] = [str(path) for path in files.pop(None, {})]
    chosen = {}
    # Language -> number of videos without a wanted language.
    num_other: Counter[str] = Counter()
    for video_id in ids:
        candidates = files.get(video_id, {})
        used = choose_captions(candidates, wanted)
        if used is not None:
            chosen[video_id] = used, candidates.pop(used)
            reason = f"{used.name} is preferred"
        else:
            languages = sorted({language.tag for language in candidates.values()})
            num_other.update(languages)
            names = " or ".join(wanted)
            reason = f"not in {names}"
            problem = "no caption file"
            if languages:
                problem += f" in {names}, but in {', '.join(languages)}"
            report["videos_without_captions"][video_id] = problem
        for path in candidates:
            report["captions_unused"][str(path)] = reason
    _log_unused(list(report["captions_unused"]), num_other)
    return chosen


def caption_files(folder: Path) -> list[Path]:
    """Returns the caption files in a folder and its sub-folders, one level, without hidden ones."""
    entries = sorted(folder.iterdir())
    for entry in list(entries):
        if entry.is_dir():
            entries += sorted(entry.iterdir())
    files = []
    for path in entries:
        is_hidden = path.name.startswith(".")
        has_suffix = path.suffix.lower() in CAPTION_SUFFIXES
        if has_suffix and not is_hidden and path.is_file():
            files.append(path)
    return files


def _log_unused(paths: list[str], num_other: Counter[str]) -> None:
    """Logs the unused caption files, and the languages of videos without a wanted one."""
    if paths:
        first = ", ".join(paths[:MAX_LISTED])
        more = ", ..." if len(paths) > MAX_LISTED else ""
        logger.info("caption files not used: %s%s", first, more)
    if num_other:
        logger.warning(
            "videos with captions in other languages only: %s. Name the languages to use with "
            "`--language`.",
            _counts(num_other),
        )


def _counts(languages: Counter[str]) -> str:
    """Returns the counts as text, such as "6 en, 2 de"."""
    return ", ".join(
        f"{count} {language}" for language, count in languages.most_common()
    )
