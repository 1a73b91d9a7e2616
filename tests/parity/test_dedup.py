"""De-duplicated captions equal the recorded ones, value for value."""

import json
import random
from pathlib import Path

import pytest

from mmpt.cli.dedup import main
from mmpt.prepare.captions.corpus import iter_corpus
from mmpt.prepare.captions.dedup import deduplicate

RECORDED = json.loads((Path(__file__).parent / "golden" / "dedup.json").read_text())
RAW = RECORDED["raw"]


@pytest.mark.parametrize("seed", range(4))
def test_all_videos_with_one_generator(seed):
    draw = random.Random(seed).random
    found = {name: deduplicate(captions, draw) for name, captions in RAW.items()}
    assert found == RECORDED["dedup"][f"seed{seed}"]


@pytest.mark.parametrize("name", RECORDED["dedup_single_seed"])
def test_one_video_with_its_own_seed(name):
    for seed, expected in RECORDED["dedup_single_seed"][name].items():
        assert (
            deduplicate(RAW[name], random.Random(int(seed.removeprefix("seed"))).random) == expected
        )


@pytest.mark.parametrize(
    ("draws", "starts", "ends", "texts"),
    [
        (
            (0.844, 0.758),
            [0.0, 4.0, 8.0],
            [4.0, 8.0, 10.0],
            ["take the pan", "and heat it", "slowly"],
        ),
        (
            (0.134, 0.847),
            [0.0, 2.0, 8.0],
            [2.0, 8.0, 10.0],
            ["take", "the pan and heat it", "slowly"],
        ),
    ],
)
def test_the_worked_example_of_the_specification(draws, starts, ends, texts):
    captions = {
        "start": [0.0, 2.0, 5.0, 8.0],
        "end": [4.0, 6.0, 8.0, 10.0],
        "text": ["take the pan", "the pan and heat it", "heat it", "heat it slowly"],
    }
    left = iter(draws)
    assert deduplicate(captions, lambda: next(left)) == {
        "start": starts,
        "end": ends,
        "text": texts,
    }
    assert next(left, None) is None


@pytest.mark.parametrize("seed", [0, 3])
def test_the_command_writes_the_recorded_captions(tmp_path, seed):
    (tmp_path / "raw_caption.json").write_text(json.dumps(RAW))
    assert main(["--how2dir", str(tmp_path), "--seed", str(seed)]) == 0
    assert (
        dict(iter_corpus(tmp_path / "raw_caption_dedup.jsonl")) == RECORDED["dedup"][f"seed{seed}"]
    )
