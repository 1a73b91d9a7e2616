"""Tests of the decisions about a user's own videos: captions, split and settings."""

from itertools import chain
from pathlib import Path

import pytest

from mmpt.config import load_config
from mmpt.prepare.captions.language import UNKNOWN, Language, parse_wanted
from mmpt.prepare.user_data.videos import (
    choose_batch_size,
    choose_captions,
    find_captions,
    fitting_settings,
    possible_ids,
    split_ids,
)
from tests.support.paths import ROOT


def chosen(ids: str, files: str, wanted: str = "en", **inside: str) -> dict[str, str]:
    """Returns {video id: caption file that is used}.

    Args:
        ids: video ids, separated by spaces.
        files: caption files, separated by spaces.
        wanted: wanted languages, separated by commas.
        inside: the languages that the contents of files name, by file stem.
    """

    def language_inside(path: Path) -> Language:
        tag = inside.get(path.stem)
        return Language(tag) if tag else UNKNOWN

    paths = [Path(name) for name in files.split()]
    found = find_captions(ids.split(), paths, language_inside)
    grouped = list(chain.from_iterable(found.values()))
    assert sorted(grouped) == sorted(paths)
    languages = parse_wanted([wanted])
    used = {}
    for video_id, group in found.items():
        path = choose_captions(group, languages)
        if video_id and path:
            used[video_id] = str(path)
    return used


def test_caption_files_are_matched_with_videos_by_name():
    names = (
        "a.vtt a.json b.en.vtt b.en-US.srt c.d.srt c.d.en.vtt f.SRT e.info.json c.vtt"
    )
    used = {"f": "f.SRT", "a": "a.vtt", "b": "b.en.vtt", "c.d": "c.d.en.vtt"}
    assert chosen("f a b c.d g", names) == used


def test_the_names_of_caption_files_begin_with_ids():
    files = [Path(f"raw/{name}") for name in ("tea.v2.en.vtt", "pie.mp4.srt")]
    assert possible_ids(files) == {"tea", "tea.v2", "tea.v2.en", "pie"}


@pytest.mark.parametrize(
    ("files", "wanted", "used"),
    [
        ("tea.de.vtt tea.en.vtt", "en", "tea.en.vtt"),
        ("tea.de.vtt tea.en.vtt", "de", "tea.de.vtt"),
        ("tea.de.vtt tea.fr.vtt", "en,fr,de", "tea.fr.vtt"),
        ("tea.de.vtt tea.ENG.SRT", "en", "tea.ENG.SRT"),
        ("tea.en-orig.vtt tea.en_GB.srt tea.a.en.vtt", "en", "tea.en_GB.srt"),
        ("tea.en-US.vtt tea.en.json", "en", "tea.en.json"),
        ("tea.en.srt tea.en.vtt tea.en.json", "en", "tea.en.vtt"),
        ("tea.en-de.vtt tea.a.en.vtt tea.de.vtt", "en", "tea.a.en.vtt"),
        ("tea.en-de.vtt tea.de-en.vtt", "de", "tea.de-en.vtt"),
        ("tea.en-US.vtt tea.en-GB.vtt", "en-GB", "tea.en-GB.vtt"),
        ("tea.zh-Hant.srt tea.zh-Hans.srt", "zh-Hant", "tea.zh-Hant.srt"),
        ("tea.de.vtt tea.json", "en", "tea.json"),
        ("tea.de.vtt tea.json", "en,de", "tea.json"),
        ("tea.json tea.mp4.vtt tea.und.srt", "zh", "tea.json"),
        ("tea.mp4.vtt tea.zh.srt tea.ts.vtt", "zh", "tea.zh.srt"),
        ("tea.wav.srt tea.ts.vtt", "en", "tea.wav.srt"),
        ("tea.srt tea.en.srt tea.a.en.srt", "en", "tea.en.srt"),
        ("tea.en-uYU-mmqFLq8.vtt tea.en.srt", "en", "tea.en.srt"),
    ],
)
def test_the_file_in_the_preferred_language_is_used(files, wanted, used):
    reordered = " ".join(reversed(files.split()))
    assert chosen("tea", files, wanted) == {"tea": used}
    assert chosen("tea", reordered, wanted) == {"tea": used}


def test_a_part_of_a_known_video_id_is_not_a_language():
    assert chosen("my my.it", "my.it.vtt my.en.vtt") == {
        "my": "my.en.vtt",
        "my.it": "my.it.vtt",
    }
    assert chosen("my.it", "my.it.vtt my.it.a.en.vtt") == {"my.it": "my.it.vtt"}
    assert chosen("a.b.en", "a.b.en.vtt a.b.en.de.vtt") == {"a.b.en": "a.b.en.vtt"}
    assert chosen("tea tea.a", "tea.a.en.vtt") == {"tea.a": "tea.a.en.vtt"}
    assert chosen("my", "my.it.vtt") == {}


def test_the_language_in_the_content_is_used_if_the_name_has_none():
    assert chosen("tea", "tea.srt tea.vtt", tea="de") == {}
    assert chosen(
        "tea pie", "tea.en.vtt tea.srt pie.json", "de", tea="de", pie="fr"
    ) == {"tea": "tea.srt"}


@pytest.mark.parametrize("recipe", ["norton", "videoclip"])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.999])
def test_settings_fit_any_number_of_videos(recipe, share):
    for num_videos in [*range(2, 70), 127, 128, 511, 512, 1000, 5000]:
        ids = [f"v{index}" for index in range(num_videos)]
        batch = choose_batch_size(num_videos, recipe)
        train, val = split_ids(ids, share, batch)
        assert sorted(train + val) == sorted(ids)
        assert batch >= 1
        assert len(train) >= batch
        assert len(val) >= batch
        settings = fitting_settings(len(train), batch, recipe, 6)
        retrieval = settings["retrieval"]
        assert settings["dataset"]["num_video_per_batch"] == batch
        assert batch <= retrieval["num_cands"] <= len(train)
        assert 1 <= retrieval["centroids"] <= len(train)
        assert settings["optimization"]["warmup_updates"] >= 1


def test_settings_for_howto100m_equal_the_recipe():
    batch = choose_batch_size(1_200_000, "norton")
    settings = fitting_settings(1_200_000, batch, "norton", 6)
    recipe = load_config(ROOT / "projects/retri/norton/how2_pretrain.yaml")
    assert batch == recipe.dataset.num_video_per_batch
    for key, value in settings["retrieval"].items():
        assert value == getattr(recipe.retrieval, key)
    for group in ("optimization", "common"):
        for key, value in settings[group].items():
            assert value == recipe.option(group, key)


def test_the_validation_list_has_the_wanted_share():
    ids = [str(index) for index in range(20_000)]
    _, val = split_ids(ids, 0.05, batch=64)
    assert len(val) == 1000


def test_adding_a_video_hardly_changes_the_split():
    ids = [f"v{index}" for index in range(100)]
    _, before = split_ids(ids, 0.2, 4)
    _, after = split_ids([*ids, "one more"], 0.2, 4)
    changed = set(before) ^ set(after)
    assert len(changed) <= 2
