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
"""Tags whose `langcodes.tag_distance` is less than this are one language. Regions of a language are
5 apart, scripts more than 50.
"""

_NAME = re.compile(
    r"(?P<automatic>(?:a|asr|auto)[.-])?"
    r"(?P<tag>[a-z]{2,3}(?:[-_][a-z0-9]{2,8})*?)"
    r"(?P<original>-orig)?"
    r"(?:-[a-z0-9_-]{11})?",
    re.IGNORECASE,
)


class Language(NamedTuple):
    """The language of a caption file."""

    tag: str = ""
    """In the standard form of BCP 47; empty if unknown."""
    kind: int = MANUAL

    def __str__(self) -> str:
        if not self.tag:
            return "without a language"
        return self.tag + ("", " (automatic)", " (translated)")[self.kind]


UNKNOWN = Language()


def parse_tag(text: str) -> Language | None:
    """Returns the language that a tag names, or None if the text is not a language tag."""
    if not (match := _NAME.fullmatch(text)):
        return None
    tag, is_translated = _without_source(match["tag"].replace("_", "-"))
    if not langcodes.tag_is_valid(tag):
        return None
    if (standard := langcodes.standardize_tag(tag)) == "und":  # undetermined
        return UNKNOWN
    is_automatic = match["automatic"] or match["original"]
    kind = TRANSLATED if is_translated else AUTOMATIC if is_automatic else MANUAL
    return Language(standard, kind)


def _without_source(tag: str) -> tuple[str, bool]:
    """Returns a tag without the language that it was translated from, and whether it had one.

    `en-de` and `pt-BR-zh-Hans` have one. In `pt-br`, `br` is a region, not Breton.
    """
    parts = tag.split("-")
    for place in range(1, len(parts)):
        target, source = "-".join(parts[:place]), "-".join(parts[place:])
        is_region = "_".join(parts).lower() in locale.locale_alias
        is_language = re.fullmatch("[a-z]{2,3}", parts[place]) and langcodes.tag_is_valid(source)
        if is_language and not is_region:
            return target, True
    return tag, False


def parse_wanted(values: Sequence[str]) -> list[str]:
    """Returns the standard tags of the languages that a command line asks for, in its order.

    Args:
        values: tags. One value may have several, joined by commas.
    Raises:
        DataError: one is not the tag of a known language.
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


def preference(language: Language, wanted: Sequence[str]) -> tuple[int, int, int] | None:
    """Returns how far down the list of wanted languages a language is, or None if it is not wanted.
    The smallest value is preferred.

    If the wanted region is missing, other regions of the language are used, the nearest first;
    other scripts are not. An unknown language counts as the first wanted one, but comes after
    manual captions that name it.
    """
    if not language.tag:
        return 0, MANUAL, MAX_DISTANCE
    for place, tag in enumerate(wanted):
        distance = langcodes.tag_distance(tag, language.tag)
        if distance < MAX_DISTANCE:
            return place, language.kind, distance
    return None
