"""Tests of language tags in file names, languages in file contents, and the preferred language."""

import json

import pytest

from mmpt.errors import DataError
from mmpt.prepare.captions.language import UNKNOWN, parse_tag, parse_wanted, preference
from mmpt.prepare.captions.reader import read_language


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("eng", "en"),
        ("ger", "de"),
        ("deu", "de"),
        ("iw", "he"),
        ("yue", "yue"),
        ("en-US", "en-US"),
        ("en_gb", "en-GB"),
        ("pt-br", "pt-BR"),  # `br` is also Breton
        ("zh-Hans", "zh-Hans"),
        ("zh-hant-TW", "zh-Hant-TW"),
        ("es-419", "es-419"),
        ("en-orig", "en (automatic)"),
        ("a.en", "en (automatic)"),
        ("a-en-US", "en-US (automatic)"),
        ("en-de", "en (translated)"),
        ("zh-Hans-en", "zh-Hans (translated)"),
        ("de-en-US", "de (translated)"),
        ("en-zh-Hans", "en (translated)"),
        ("pt-PT-es-419", "pt-PT (translated)"),
        ("en-GB-de", "en-GB (translated)"),
        ("en-en-uYU-mmqFLq8", "en (translated)"),
        ("en-JkeT_87f4cc", "en"),  # YouTube's name of a track
        ("und", "without a language"),
    ],
)
def test_a_tag_names_a_language(tag, language):
    assert str(parse_tag(tag)) == language


@pytest.mark.parametrize(
    "tag", ["", "e", "info", "v2", "live_chat", "part 1", "a", "en.de", "en-"]
)
def test_other_parts_of_a_name_are_not_languages(tag):
    assert parse_tag(tag) is None


@pytest.mark.parametrize(
    ("wanted", "ordered", "refused"),
    [
        # Manual captions come first, then automatic captions, then machine translations.
        ("en", "en en-uYU-mmqFLq8 en-orig a.en-GB en-de", "de de-en und-en fr-en-US"),
        ("en", "en en-US en-orig", "e"),
        ("de,en", "de de-AT de-en en a.en", "fr"),
        # The wanted region comes first, then other regions. Another script is another language.
        ("en-GB", "en_gb en en-US en-GB-orig en-orig", "de"),
        ("en-GB,en", "en-GB en en-US", "de"),
        ("zh-Hans", "zh-Hans-CN zh", "zh-Hant zh-TW"),
        ("eng", "en eng-US", "enm"),
        ("no", "no nb", "da sv"),
        ("en-orig", "en en-US en-orig", "de"),
    ],
)
def test_the_preferred_languages_come_first(wanted, ordered, refused):
    wants = parse_wanted([wanted])
    places = [preference(parse_tag(tag), wants) for tag in ordered.split()]
    assert None not in places
    assert places == sorted(places)
    for tag in refused.split():
        language = parse_tag(tag)
        assert language in (None, UNKNOWN) or preference(language, wants) is None
    best = preference(parse_tag(wants[0]), wants)
    assert (
        best
        < preference(UNKNOWN, wants)
        < preference(parse_tag(f"a.{wants[0]}"), wants)
    )


def test_languages_may_be_separated_by_commas_or_repeated():
    assert parse_wanted(["en-gb, DE", "fra"]) == ["en-GB", "de", "fr"]


@pytest.mark.parametrize(
    "value", ["", "en,", "xx", "xyz", "english", "en de", "en-", "a", "und", "e"]
)
def test_a_value_that_is_not_a_language_code_is_an_error(value):
    with pytest.raises(
        DataError, match=r"^`--language` must be codes of languages.* but one is '"
    ):
        parse_wanted([value])


@pytest.mark.parametrize(
    ("name", "content", "language"),
    [
        (
            "a.vtt",
            "WEBVTT\nKind: captions\nLanguage: de\n\n00:01.000 --> 00:02.000\nx\n",
            "de",
        ),
        (
            "a.vtt",
            "\ufeffWEBVTT\r\nlanguage:pt-BR\r\n\r\n00:01.000 --> 00:02.000\r\nx\r\n",
            "pt-BR",
        ),
        ("a.vtt", "WEBVTT\rLanguage: de\r\r00:01.000 --> 00:02.000\rx\r", "de"),
        ("a.vtt", "\ufeff\ufeffWEBVTT\nLanguage: de\n", "de"),
        ("a.vtt", "WEBVTT\n00:01.000 --> 00:02.000\nLanguage: de\n", None),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nLanguage: de\n", None),
        ("a.vtt", "WEBVTT\nLanguage:\n\n", None),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nLanguage: de\n", None),
        (
            "a.json",
            json.dumps({"segments": [{"language": "fr"}], "language": "de"}),
            "de",
        ),
        # OpenAI's API.
        ("a.json", json.dumps({"segments": [], "language": "german"}), "de"),
        ("a.json", json.dumps({"start": [], "end": [], "text": []}), None),
        ("a.json", json.dumps({"segments": [], "language": None}), None),
        ("a.json", '["language"]', None),
        ("a.json", "{", None),
        ("a.vtt", b"WEBVTT\nLanguage: de\n\xff\n", None),
    ],
)
def test_the_language_is_read_from_the_content_of_a_file(
    tmp_path, name, content, language
):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_language(path) == (parse_tag(language) if language else UNKNOWN)
