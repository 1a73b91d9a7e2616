"""The tensors of every aligner equal the recorded ones bit for bit.

They were recorded from both original code bases, Norton's and VideoCLIP's (`mmpt`). The random
generator has the same state.
"""

import random
from itertools import product

import pytest

from mmpt.batch import Captions, ShardKey, Split
from mmpt.config import DatasetConfig
from mmpt.endtasks.coin.data import COINActionSegmentationAligner, Step
from mmpt.endtasks.crosstask.data import CrossTaskAligner, Steps, TaskVideo, read_segments
from mmpt.endtasks.msrvtt_qa.data import MSRVTTQAAligner
from mmpt.endtasks.youcook.data import YoucookFullVideoBGAligner
from mmpt.processors import ALIGNERS
from tests.support.recorded import INPUTS, arrays, assert_equal, record
from tests.support.tiny_bert import tiny_bert

TREES = {"norton": None, "mmpt": False}
"""The value of `sort_clips` for each code base. VideoCLIP does not sort the sampled clips."""
ONE_VIDEO = ["FixedLenAligner", "VariedLenAligner", "StartClipAligner", "OverlappedAligner"]
MANY_VIDEOS = ["VideoRetriAligner", "VideoRetriOverlappedAligner"]
SPANS = ("video_start", "video_end", "text_start", "text_end")
every_tree = pytest.mark.parametrize("tree", TREES)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert") / "tinybert")


def build(name, tree, bert):
    config = record(f"aligners_{tree}")
    settings = config.get(f"config/{name}", config["config/FixedLenAligner"])
    cls = ALIGNERS.get(name, "dataset.aligner")
    settings = {**settings, "bert_name": bert, "sort_clips": TREES[tree], "split": None}
    values = {key: value for key, value in settings.items() if key in cls.Config.model_fields}
    return cls(cls.Config(**values), Split.TRAIN)


def captions_of(golden, count, last_end=float("inf")):
    return Captions(
        start=golden["in_start"][:count].tolist(),
        end=[min(end, last_end) for end in golden["in_end"][:count].tolist()],
        cap=[row[row >= 0].tolist() for row in golden["in_caps"][:count]],
    )


@pytest.mark.parametrize(
    ("name", "seed"), [*product(ONE_VIDEO, (0, 1, 2)), *product(MANY_VIDEOS, (0, 1))]
)
@every_tree
def test_pre_training(tree, name, seed, bert):
    golden = arrays(f"aligners_{tree}")
    video, captions = golden["in_video_feature"], captions_of(golden, 14)
    case = f"{name}/seed{seed}"
    if name in ONE_VIDEO:
        arguments = ShardKey("vidA", 3, 0, 5), video, captions
    else:
        keys = [ShardKey("vidA", -1, 0, 5), ShardKey("vidB", -1, 0, 6), ShardKey("vidC", -1, 1, 0)]
        features = [video, video[:20][::-1], video[10:15]]
        more = [captions_of(golden, 6, 20.0), captions_of(golden, 3, 6.5)]
        arguments = keys, features, [captions, *more]
    batch = build(name, tree, bert)(*arguments, random.Random(seed))
    if name in MANY_VIDEOS:  # the original has the axes [V, C]
        batch |= {key: batch[key].unflatten(0, (3, -1)) for key in (*INPUTS, *SPANS)}
    assert_equal(batch, golden, case, (*INPUTS, *SPANS))
    assert batch["video_id"] == record(f"aligners_{tree}")[f"{case}/video_id"]


@every_tree
def test_downstream(tree, bert):
    golden, aligner = arrays(f"aligners_{tree}"), build("DSAligner", tree, bert)
    video = golden["in_video_feature"]
    for name, feature, ids in (
        ("DSAligner", video, list(range(104, 150))),
        ("DSAligner_short", video[:5], [200, 201, 202]),
    ):
        batch = aligner("vidA", feature, ids, random.Random(0))
        assert_equal(batch, golden, name, INPUTS)
        assert batch["video_id"] == record(f"aligners_{tree}")[f"{name}/video_id"]


@every_tree
def test_multiple_choice(tree, bert):
    golden = arrays(f"aligners_{tree}")
    texts = [[110, 111], [112], [113, 114, 115], [116], [117, 118]]
    aligner = MSRVTTQAAligner(
        DatasetConfig(bert_name=bert, max_video_len=8, max_len=32), Split.TEST
    )
    batch = aligner("vidA", golden["in_video_feature"], (2, texts), random.Random(0))
    assert_equal(batch, golden, "MSRVTTQAAligner", (*INPUTS, "answers"))
    assert batch["video_id"] == "vidA"


def test_whole_videos(bert):
    sizes = {"max_video_len": 8, "max_len": 32, "sliding_window": 4, "sliding_window_size": 8}
    aligner = YoucookFullVideoBGAligner(
        YoucookFullVideoBGAligner.Config(bert_name=bert, **sizes), Split.TEST
    )
    golden, texts = arrays("aligners_norton"), [[110, 111], [112], [113, 114, 115]]
    item = aligner("vidA", golden["in_video_feature"][:22], texts, random.Random(0))
    assert_equal(item, golden, "YoucookFullVideoBGAligner", INPUTS)
    assert (item["video_id"], item["video_len"]) == ("vidA", 22)


@pytest.mark.parametrize("cls", [COINActionSegmentationAligner, CrossTaskAligner])
def test_steps_of_a_video(cls, bert, tmp_path):
    golden, texts = arrays("downstream"), record("downstream")
    if cls is CrossTaskAligner:
        (tmp_path / "a.csv").write_text(texts["crosstask_csv"])
        segments = read_segments(tmp_path / "a.csv", 3)
        video, labels = TaskVideo("a", "16815"), Steps(texts["crosstask_text"], segments)
    else:
        columns = (texts["coin_label"][name] for name in ("start", "end", "label"))
        video, labels = "a", []
        for start, end, step in zip(*columns, strict=True):
            labels.append(Step(id=step, segment=(start, end), label="x"))
    aligner = cls(cls.Config(**{**texts["config"], "bert_name": bert}), Split.TEST)
    item = aligner(video, golden["video_feature_37x8"], labels, random.Random(0))
    names = [key.partition("/")[2] for key in golden if key.startswith(f"{cls.__name__}/")]
    assert len(names) >= 5
    assert_equal(item, golden, cls.__name__, names)
    assert (item["video_len"], item["video_id"]) == (37, "a")
    assert item.get("task") == getattr(video, "task", None)
