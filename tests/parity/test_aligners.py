"""Every aligner gives the recorded tensors of both code bases, bit for bit, from the same generator
state.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Captions, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.processors import ALIGNERS
from tests.tiny_bert import tiny_bert

GOLDEN = Path(__file__).parent / "golden"
TREES = {"norton": None, "mmpt": False}  # VideoCLIP keeps the order of the draws
ONE_VIDEO = ["FixedLenAligner", "VariedLenAligner", "StartClipAligner", "OverlappedAligner"]
MANY_VIDEOS = ["VideoRetriAligner", "VideoRetriOverlappedAligner"]
FIELDS = [
    "caps",
    "cmasks",
    "vfeats",
    "vmasks",
    "video_start",
    "video_end",
    "text_start",
    "text_end",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert") / "tinybert")


def read_golden(tree):
    with np.load(GOLDEN / f"aligners_{tree}.npz") as arrays:
        return json.loads((GOLDEN / f"aligners_{tree}.json").read_text()), dict(arrays)


def build(name, settings, bert, sort_clips):
    values = {key: value for key, value in settings.items() if key in DatasetConfig.model_fields}
    values.update(bert_name=bert, sort_clips=sort_clips, split=None)
    return ALIGNERS.get(name, "dataset.aligner")(DatasetConfig(**values), Split.TRAIN)


def captions_of(arrays, count, last_end=None):
    ends = arrays["in_end"][:count].tolist()
    return Captions(
        start=arrays["in_start"][:count].tolist(),
        end=ends if last_end is None else [min(end, last_end) for end in ends],
        cap=[row[row >= 0].tolist() for row in arrays["in_caps"][:count]],
    )


def check(batch, arrays, prefix):
    for field in FIELDS:
        want = arrays[f"{prefix}/{field}"]
        got = batch[field].numpy()
        assert got.dtype == want.dtype, field
        np.testing.assert_array_equal(got, want, err_msg=f"{prefix}/{field}")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ONE_VIDEO)
@pytest.mark.parametrize("tree", TREES)
def test_one_video(tree, name, seed, bert):
    texts, arrays = read_golden(tree)
    aligner = build(name, texts[f"config/{name}"], bert, TREES[tree])
    captions = captions_of(arrays, 14)
    batch = aligner(
        ShardKey("vidA", 3, 0, 5), arrays["in_video_feature"], captions, random.Random(seed)
    )
    check(batch, arrays, f"{name}/seed{seed}")
    assert batch["video_id"] == texts[f"{name}/seed{seed}/video_id"]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", MANY_VIDEOS)
@pytest.mark.parametrize("tree", TREES)
def test_many_videos(tree, name, seed, bert):
    texts, arrays = read_golden(tree)
    aligner = build(name, texts[f"config/{name}"], bert, TREES[tree])
    video = arrays["in_video_feature"]
    keys = [ShardKey("vidA", -1, 0, 5), ShardKey("vidB", -1, 0, 6), ShardKey("vidC", -1, 1, 0)]
    features = [video, video[:20][::-1], video[10:15]]
    captions = [captions_of(arrays, 14), captions_of(arrays, 6, 20.0), captions_of(arrays, 3, 6.5)]
    batch = aligner(keys, features, captions, random.Random(seed))
    check(batch, arrays, f"{name}/seed{seed}")
    assert batch["video_id"] == texts[f"{name}/seed{seed}/video_id"]


@pytest.mark.parametrize("tree", TREES)
def test_downstream_aligner(tree, bert):
    texts, arrays = read_golden(tree)
    aligner = build(
        "DSAligner", texts.get("config/DSAligner", texts["config/FixedLenAligner"]), bert, None
    )
    video = arrays["in_video_feature"]
    cases = [
        ("DSAligner", video, list(range(104, 150))),
        ("DSAligner_short", video[:5], [200, 201, 202]),
    ]
    for prefix, feature, ids in cases:
        batch = aligner("vidA", feature, ids, random.Random(0))
        for field in FIELDS[:4]:
            np.testing.assert_array_equal(batch[field].numpy(), arrays[f"{prefix}/{field}"])
        assert batch["video_id"] == texts[f"{prefix}/video_id"]
