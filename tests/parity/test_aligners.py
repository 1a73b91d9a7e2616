"""The tensors of every aligner equal the recorded ones bit for bit.

They were recorded from both original code bases, Norton's and VideoCLIP's (`mmpt`), with the same
state of the random generator.
"""

import random
from itertools import product

import pytest

from mmpt.batch import Captions, ShardKey, Split
from mmpt.config import DatasetConfig
from mmpt.endtasks.coin.data import COINActionSegmentationAligner, Step
from mmpt.endtasks.crosstask.data import (
    CrossTaskAligner,
    Steps,
    TaskVideo,
    read_segments,
)
from mmpt.endtasks.msrvtt_qa.data import MSRVTTQAAligner
from mmpt.endtasks.youcook.data import YoucookFullVideoBGAligner
from mmpt.processors import ALIGNERS
from tests.support.recorded import INPUTS, arrays, assert_equal, record
from tests.support.tiny_bert import tiny_bert

TREES = {"norton": None, "mmpt": False}
"""The value of `sort_clips` for each code base. VideoCLIP does not sort the sampled clips."""
ONE_VIDEO = [
    "FixedLenAligner",
    "VariedLenAligner",
    "StartClipAligner",
    "OverlappedAligner",
]
MANY_VIDEOS = ["VideoRetriAligner", "VideoRetriOverlappedAligner"]
SPANS = ("video_start", "video_end", "text_start", "text_end")
every_tree = pytest.mark.parametrize("tree", TREES)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert") / "tinybert")


def build(name, tree, bert):
    recorded = record(f"aligners_{tree}")
    settings = recorded.get(f"config/{name}", recorded["config/FixedLenAligner"])
    settings = settings | {"bert_name": bert, "sort_clips": TREES[tree], "split": None}
    cls = ALIGNERS.get(name, "dataset.aligner")
    known = settings.keys() & cls.Config.model_fields.keys()
    config = cls.Config(**{key: settings[key] for key in known})
    return cls(config, Split.TRAIN)


def captions_of(golden, count, last_end=float("inf")):
    starts = golden["in_start"][:count]
    ends = golden["in_end"][:count].clip(max=last_end)
    texts = [row[row >= 0].tolist() for row in golden["in_caps"][:count]]
    return Captions(start=starts.tolist(), end=ends.tolist(), cap=texts)


@pytest.mark.parametrize(
    ("name", "seed"), [*product(ONE_VIDEO, (0, 1, 2)), *product(MANY_VIDEOS, (0, 1))]
)
@every_tree
def test_pre_training(tree, name, seed, bert):
    golden = arrays(f"aligners_{tree}")
    video = golden["in_video_feature"]
    captions = captions_of(golden, 14)
    case = f"{name}/seed{seed}"
    if name in ONE_VIDEO:
        arguments = ShardKey("vidA", 3, 0, 5), video, captions
    else:
        keys = [
            ShardKey("vidA", -1, 0, 5),
            ShardKey("vidB", -1, 0, 6),
            ShardKey("vidC", -1, 1, 0),
        ]
        features = [video, video[:20][::-1], video[10:15]]
        shorter = captions_of(golden, 6, 20.0)
        shortest = captions_of(golden, 3, 6.5)
        arguments = keys, features, [captions, shorter, shortest]
    aligner = build(name, tree, bert)
    batch = aligner(*arguments, random.Random(seed))
    if name in MANY_VIDEOS:  # the original has the axes [V, C]
        for key in (*INPUTS, *SPANS):
            batch[key] = batch[key].unflatten(0, (3, -1))
    assert_equal(batch, golden, case, (*INPUTS, *SPANS))
    assert batch["video_id"] == record(f"aligners_{tree}")[f"{case}/video_id"]


@every_tree
def test_downstream(tree, bert):
    golden = arrays(f"aligners_{tree}")
    recorded = record(f"aligners_{tree}")
    aligner = build("DSAligner", tree, bert)
    video = golden["in_video_feature"]
    cases = {
        "DSAligner": (video, list(range(104, 150))),
        "DSAligner_short": (video[:5], [200, 201, 202]),
    }
    for name, (features, ids) in cases.items():
        batch = aligner("vidA", features, ids, random.Random(0))
        assert_equal(batch, golden, name, INPUTS)
        assert batch["video_id"] == recorded[f"{name}/video_id"]


@every_tree
def test_multiple_choice(tree, bert):
    golden = arrays(f"aligners_{tree}")
    texts = [[110, 111], [112], [113, 114, 115], [116], [117, 118]]
    config = DatasetConfig(bert_name=bert, max_video_len=8, max_len=32)
    aligner = MSRVTTQAAligner(config, Split.TEST)
    batch = aligner("vidA", golden["in_video_feature"], (2, texts), random.Random(0))
    assert_equal(batch, golden, "MSRVTTQAAligner", (*INPUTS, "answers"))
    assert batch["video_id"] == "vidA"


def test_whole_videos(bert):
    golden = arrays("aligners_norton")
    texts = [[110, 111], [112], [113, 114, 115]]
    config = YoucookFullVideoBGAligner.Config(
        bert_name=bert,
        max_video_len=8,
        max_len=32,
        sliding_window=4,
        sliding_window_size=8,
    )
    aligner = YoucookFullVideoBGAligner(config, Split.TEST)
    item = aligner("vidA", golden["in_video_feature"][:22], texts, random.Random(0))
    assert_equal(item, golden, "YoucookFullVideoBGAligner", INPUTS)
    assert (item["video_id"], item["video_len"]) == ("vidA", 22)


@pytest.mark.parametrize("cls", [COINActionSegmentationAligner, CrossTaskAligner])
def test_steps_of_a_video(cls, bert, tmp_path):
    golden = arrays("downstream")
    texts = record("downstream")
    if cls is CrossTaskAligner:
        (tmp_path / "a.csv").write_text(texts["crosstask_csv"])
        segments = read_segments(tmp_path / "a.csv", 3)
        video = TaskVideo("a", "16815")
        labels = Steps(texts["crosstask_text"], segments)
    else:
        video = "a"
        labels = []
        columns = texts["coin_label"]
        for start, end, step in zip(
            columns["start"], columns["end"], columns["label"], strict=True
        ):
            labels.append(Step(id=step, segment=(start, end), label="x"))
    config = cls.Config(**texts["config"] | {"bert_name": bert})
    aligner = cls(config, Split.TEST)
    item = aligner(video, golden["video_feature_37x8"], labels, random.Random(0))
    prefix = f"{cls.__name__}/"
    names = [key.removeprefix(prefix) for key in golden if key.startswith(prefix)]
    assert len(names) >= 5
    assert_equal(item, golden, cls.__name__, names)
    assert (item["video_len"], item["video_id"]) == (37, "a")
    assert item.get("task") == getattr(video, "task", None)
