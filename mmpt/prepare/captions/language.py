"""The languages of caption files: tags in file names, and the order of preference.

A tag is a BCP 47 tag, such as `en`, `eng`, `pt-BR` or `zh-Hans`, or a name that yt-dlp gives to a
track of YouTube: `en-orig` and `a.en` are automatic captions, `en-de` is a machine translation from
German to English, and `en-uYU-mmqFLq8` is another English track.
"""

import locale
import re
from collections.abc import Sequence
from typing import NamedTuple

import langcodes

from mmpt.errors import DataError

MANUAL, AUTOMATIC, TRANSLATED = range(3)  # in order of preference
MAX_DISTANCE = 8
"""Two tags with a smaller `langcodes.tag_distance` are the same language. Regions of one language
have a distance of 5, scripts more than 50.
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
    """Tag in the standard form of BCP 47; empty if the language is unknown."""
    kind: int = MANUAL
    """`MANUAL`, `AUTOMATIC` or `TRANSLATED`."""

    def __str__(self) -> str:
        if not self.tag:
            return "without a language"
        return self.tag + ("", " (automatic)", " (translated)")[self.kind]


UNKNOWN = Language()


def parse_tag(text: str) -> Language | None:
    """Returns the language of a tag, or None if the text is not a language tag."""
    match = _NAME.fullmatch(text)
    if not match:
        return None
    tag, is_translated = _split_translation(match["tag"].replace("_", "-"))
    if not langcodes.tag_is_valid(tag):
        return None
    standard = langcodes.standardize_tag(tag)
    if standard == "und":  # undetermined
        return UNKNOWN
    if is_translated:
        return Language(standard, TRANSLATED)
    if match["automatic"] or match["original"]:
        return Language(standard, AUTOMATIC)
    return Language(standard, MANUAL)


def _split_translation(tag: str) -> tuple[str, bool]:
    """Returns the target language of a tag, and whether the tag also names a source language.

    `en-de` and `pt-BR-zh-Hans` are translations. `pt-br` is not: `br` is a region here, not Breton.
    """
    parts = tag.split("-")
    # Find the first part that begins a valid tag, unless the whole is a known locale.
    for position in range(1, len(parts)):
        target = "-".join(parts[:position])
        source = "-".join(parts[position:])
        is_region = "_".join(parts).lower() in locale.locale_alias
        looks_like_language = re.fullmatch("[a-z]{2,3}", parts[position])
        is_language = looks_like_language and langcodes.tag_is_valid(source)
        if is_language and not is_region:
            return target, True
    return tag, False


def parse_wanted(values: Sequence[str]) -> list[str]:
    """Returns the standard tags of the languages that a command line names, in their order.

    Args:
        values: language tags. One value may have several, separated by commas.
    Raises:
        DataError: a tag does not name a known language.
    """
    wanted = []
    for value in values:
        for part in value.split(","):
            text = part.strip()
            language = parse_tag(text)
            if not language or not language.tag:
                raise DataError(
                    "`--language` must be codes of languages, perhaps with a region, such as `en` "
                    f"or `en-GB,de`, but one is {text!r}."
                )
            wanted.append(language.tag)
    return wanted


def preference(
    language: Language, wanted: Sequence[str]
) -> tuple[int, int, int] | None:
    """Returns the rank of a language, or None if it is not wanted. The smallest rank is preferred.

    The rank is the position in the list of wanted languages, then the kind (manual, automatic,
    translated), then the distance to the wanted tag. Other regions of a wanted language are also
    wanted, but other scripts are not. An unknown language ranks directly after the manual captions
    of the first wanted language.

    Args:
        wanted: language tags, in order of preference.
    """
    if not language.tag:
        return 0, MANUAL, MAX_DISTANCE
    for position, tag in enumerate(wanted):
        distance = langcodes.tag_distance(tag, language.tag)
        if distance < MAX_DISTANCE:
            return position, language.kind, distance
    return None
