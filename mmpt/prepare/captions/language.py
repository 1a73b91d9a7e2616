"""The languages of caption files: tags in file names, and which language is preferred.

A tag is one of BCP 47, such as `en`, `eng`, `pt-BR` or `zh-Hans`, or a name that yt-dlp gives to
YouTube's tracks: `en-orig` and `a.en` are automatic captions, `en-de` is English that a machine
translated from German, `en-uYU-mmqFLq8` is a further English track.
"""

import locale
import re
from collections.abc import Sequence
from typing import NamedTuple

import langcodes

from mmpt.errors import DataError

MANUAL, AUTOMATIC, TRANSLATED = range(3)  # in order of preference
MAX_DISTANCE = 8
"""Tags closer than this, as `langcodes.tag_distance` counts, are one language: regions are 5 apart,
scripts more than 50.
"""

_TAG = re.compile(
    r"(?P<automatic>(?:a|asr|auto)[.-])?"
    r"(?P<tag>[a-z]{2,3}(?:[-_][a-z0-9]{2,8})*?)"
    r"(?P<original>-orig)?"
    r"(?P<source>-[a-z]{2,3}(?:-[A-Z]{2})?)?"
    r"(?P<track>-[a-z0-9_-]{11})?",
    re.IGNORECASE,
)


class Language(NamedTuple):
    """The language of a caption file."""

    tag: str = ""
    """In the standard form of BCP 47. Empty: unknown."""
    kind: int = MANUAL
    is_track: bool = False
    """The file has one of several tracks in this language."""

    def __str__(self) -> str:
        if not self.tag:
            return "without a language"
        return self.tag + ("", " (automatic)", " (translated)")[self.kind]


UNKNOWN = Language()


def parse_tag(text: str) -> Language | None:
    """Returns the language that a tag names; None if the text is no language tag."""
    if not (match := _TAG.fullmatch(text)):
        return None
    tag, source = match["tag"], match["source"] or ""
    # `de` in `en-de` is a source language, but `br` in `pt-br` a region in lower case.
    is_source = source[:3].islower() and langcodes.tag_is_valid(source[1:])
    if f"{tag}_{source[1:]}".lower() in locale.locale_alias or not is_source:
        tag, source = tag + source, ""
    if not langcodes.tag_is_valid(tag):
        return None
    if (standard := langcodes.standardize_tag(tag)) == "und":  # undetermined
        return UNKNOWN
    is_automatic = match["automatic"] or match["original"]
    kind = TRANSLATED if source else AUTOMATIC if is_automatic else MANUAL
    return Language(standard, kind, is_track=bool(match["track"]))


def parse_wanted(values: Sequence[str]) -> list[str]:
    """Returns the standard tags of the languages that a command line asks for, most wanted first.

    Args:
        values: tags, or several joined by commas.
    Raises:
        DataError: one is no tag of a known language.
    """
    wanted = []
    for text in (part.strip() for value in values for part in value.split(",")):
        language = parse_tag(text)
        if not language or not language.tag:
            raise DataError(
                "`--language` must be codes of languages, perhaps with a region, such as `en` or "
                f"`en-GB,de`, but one is {text!r}."
            )
        wanted.append(language.tag)
    return wanted


def preference(language: Language, wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Returns the place of a language among the wanted ones, less is better; None if it is not
    wanted.

    Regions of a language stand in for one another, the nearest first; scripts do not. An unknown
    language is taken for the one that is wanted most.
    """
    if not language.tag:
        return (0, MANUAL, 0, 0)
    for place, tag in enumerate(wanted):
        distance = langcodes.tag_distance(tag, language.tag)
        if distance < MAX_DISTANCE:
            return place, language.kind, distance, language.tag != tag or language.is_track
    return None
