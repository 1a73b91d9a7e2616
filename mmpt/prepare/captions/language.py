"""The languages of caption files: tags in file names, and which language is preferred.

A tag is a language code of ISO 639 and perhaps a script or region, as in BCP 47, or one of the
names that yt-dlp gives to YouTube's tracks: `en-orig` and `a.en` are automatic captions, `en-de` is
English that a machine translated from German, `en-uYU-mmqFLq8` is a further track in English.
"""

import locale
import re
from collections.abc import Sequence
from typing import NamedTuple

from mmpt.errors import DataError

MANUAL, AUTOMATIC, TRANSLATED = range(3)  # in order of preference

# The two-letter codes of ISO 639-1, each followed by the three-letter codes that ISO 639-2 gives
# the same language.
_ISO_639 = """
aa aar ab abk ae ave af afr ak aka am amh an arg ar ara as asm av ava ay aym az aze ba bak be bel bg
bul bh bih bi bis bm bam bn ben bo bod tib br bre bs bos ca cat ce che ch cha co cos cr cre cs ces
cze cu chu cv chv cy cym wel da dan de deu ger dv div dz dzo ee ewe el ell gre en eng eo epo es spa
et est eu baq eus fa fas per ff ful fi fin fj fij fo fao fr fra fre fy fry ga gle gd gla gl glg gn
grn gu guj gv glv ha hau he heb hi hin ho hmo hr hrv ht hat hu hun hy arm hye hz her ia ina id ind
ie ile ig ibo ii iii ik ipk io ido is ice isl it ita iu iku ja jpn jv jav ka geo kat kg kon ki kik
kj kua kk kaz kl kal km khm kn kan ko kor kr kau ks kas ku kur kv kom kw cor ky kir la lat lb ltz lg
lug li lim ln lin lo lao lt lit lu lub lv lav mg mlg mh mah mi mao mri mk mac mkd ml mal mn mon mr
mar ms may msa mt mlt my bur mya na nau nb nob nd nde ne nep ng ndo nl dut nld nn nno no nor nr nbl
nv nav ny nya oc oci oj oji om orm or ori os oss pa pan pi pli pl pol ps pus pt por qu que rm roh rn
run ro ron rum ru rus rw kin sa san sc srd sd snd se sme sg sag si sin sk slk slo sl slv sm smo sn
sna so som sq alb sqi sr srp ss ssw st sot su sun sv swe sw swa ta tam te tel tg tgk th tha ti tir
tk tuk tl tgl tn tsn to ton tr tur ts tso tt tat tw twi ty tah ug uig uk ukr ur urd uz uzb ve ven vi
vie vo vol wa wln wo wol xh xho yi yid yo yor za zha zh chi zho zu zul
"""
_CODES = {"in": "id", "iw": "he", "ji": "yi", "jw": "jv", "mo": "ro"}  # withdrawn, still in use
for _two, _three in re.findall(r"\b(\w\w)((?:\s\w{3})+)", _ISO_639):
    _CODES |= dict.fromkeys((_two, *_three.split()), _two)

_TAG = re.compile(
    r"(?P<automatic>(?:a|asr|auto)[.-])?"
    r"(?P<code>[a-z]{2,3})"
    r"(?P<subtags>(?:[-_][a-z0-9]{1,8})*?)"
    r"(?P<track>[-_][a-z0-9_-]{11})?",
    re.IGNORECASE,
)


class Language(NamedTuple):
    """The language of a caption file."""

    code: str = ""
    """ISO 639, with two letters if there is such a code. Empty: unknown."""
    subtags: tuple[str, ...] = ()
    """All that follows the code, in lower case, without YouTube's name of a track."""
    variant: str = ""
    """Script and region, such as `GB`."""
    kind: int = MANUAL
    is_plain: bool = True
    """The tag has neither a variant nor a track."""

    @property
    def tag(self) -> str:
        """The code with its variant, such as `en-GB`."""
        return f"{self.code}-{self.variant}" if self.variant else self.code

    def __str__(self) -> str:
        if not self.code:
            return "without a language"
        return self.tag + ("", " (automatic)", " (translated)")[self.kind]


UNKNOWN = Language()


def parse_tag(tag: str) -> Language | None:
    """Returns the language that a tag names; None if the text is no language tag."""
    if not (match := _TAG.fullmatch(tag)):
        return None
    if (code := match["code"].lower()) == "und":  # undetermined
        return UNKNOWN
    subtags = re.split("[-_]", match["subtags"])[1:]
    if match["automatic"]:
        subtags.append("orig")
    variant = []
    kind = MANUAL
    for subtag in subtags:
        if _is_source(code, subtag):
            kind = TRANSLATED
            break
        if subtag.lower() == "orig":
            kind = AUTOMATIC
        else:
            variant.append({2: str.upper, 4: str.title}.get(len(subtag), str)(subtag))
    return Language(
        code=_CODES.get(code, code),
        subtags=tuple(map(str.lower, subtags)),
        variant="-".join(variant),
        kind=kind,
        is_plain=not variant and not match["track"],
    )


def parse_wanted(values: Sequence[str]) -> list[Language]:
    """Returns the languages that a command line asks for, in order of preference.

    Args:
        values: tags, or several joined by commas.
    Raises:
        DataError: one is no tag, or has two letters that are no code of ISO 639-1.
    """
    wanted = []
    for tag in (part.strip() for value in values for part in value.split(",")):
        language = parse_tag(tag)
        if not language or not (language.code in _CODES or len(language.code) == 3):
            raise DataError(
                "`--language` must be language codes of ISO 639, perhaps with a region, such as "
                f"`en` or `en-GB,de`, but one is {tag!r}."
            )
        wanted.append(language)
    return wanted


def preference(language: Language, wanted: Sequence[Language]) -> tuple[int, ...] | None:
    """Returns the place of a language among the wanted ones, less is better; None if it is not
    wanted.

    `en` stands for English of any region. `en-GB` stands for British English, then for English
    without a region (the lookup of RFC 4647), but not for `en-US`. An unknown language is taken for
    the one that is wanted most.
    """
    if not language.code:
        return (0, 0, 0, 0)
    for index, want in enumerate(wanted):
        has_subtags = language.subtags[: len(want.subtags)] == want.subtags
        if language.code == want.code and (has_subtags or not language.variant):
            return index, not has_subtags, language.kind, not language.is_plain
    return None


def _is_source(code: str, subtag: str) -> bool:
    """Tells the `de` of `en-de`, a source language of yt-dlp, from a region in lower case."""
    return subtag in _CODES and f"{code}_{subtag}" not in locale.locale_alias
