"""Tests that the items of every aligner, in training and validation, equal the items of the first
release of this code, number by number.

The digests were recorded when captions were lists and every number was drawn by a separate call.
That code was compared with the original code, as in tests/parity/test_aligners.py.
"""

import hashlib

import pytest

from mmpt.batch import Split
from mmpt.datasets import MMDataset
from mmpt.processors import ALIGNERS
from tests.support.shard_data import MANY, ONE, make_data

RECORDED = {
    "FixedLenAligner train True": "baf8cc1640ea45e8",
    "FixedLenAligner train False": "cfe0396cb90dc598",
    "FixedLenAligner valid True": "a520a448ffc37fb2",
    "FixedLenAligner valid False": "4ffdb2c867d2cd12",
    "VariedLenAligner train True": "7a74204991813e62",
    "VariedLenAligner train False": "eb494b9d3d076d23",
    "VariedLenAligner valid True": "4a8656d12d690595",
    "VariedLenAligner valid False": "d998499e97012a97",
    "StartClipAligner train True": "2a5b0c1b9049ca8b",
    "StartClipAligner train False": "2a5b0c1b9049ca8b",
    "StartClipAligner valid True": "9d5fd22abf2cd8e9",
    "StartClipAligner valid False": "9d5fd22abf2cd8e9",
    "OverlappedAligner train True": "3daa2e42e023bfe9",
    "OverlappedAligner train False": "31e87e01fb83e6b3",
    "OverlappedAligner valid True": "dc321ab533af3325",
    "OverlappedAligner valid False": "c238e3fc66c30991",
    "VideoRetriAligner train True": "f31513beb3082e1a",
    "VideoRetriAligner train False": "9ecaca823c856afa",
    "VideoRetriAligner valid True": "8430831e32e5f563",
    "VideoRetriAligner valid False": "fc51964e50377486",
    "VideoRetriOverlappedAligner train True": "9c946b212f9f3a70",
    "VideoRetriOverlappedAligner train False": "757a12481f3aa797",
    "VideoRetriOverlappedAligner valid True": "44d8af632bf38035",
    "VideoRetriOverlappedAligner valid False": "d343b14062e6900e",
}
FIELDS = (
    "caps",
    "cmasks",
    "vmasks",
    "video_start",
    "video_end",
    "text_start",
    "text_end",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), 40)


def digest(data: MMDataset) -> str:
    """Returns a hash of all items of two epochs.

    Only two columns of the features are included, which identify the video and the second.
    """
    whole = hashlib.sha256()
    for epoch in (0, 1):
        for index in range(len(data)):
            item = data.item(index, epoch)
            for value in (*(item[name] for name in FIELDS), item["vfeats"][..., :2]):
                if data.aligner.takes_batches:  # recorded with the axes [V, C]
                    value = value.unflatten(0, (data.meta.num_videos, -1))
                whole.update(f"{value.dtype} {list(value.shape)}".encode())
                whole.update(value.contiguous().numpy().tobytes())
            whole.update(repr(item["video_id"]).encode())
    return whole.hexdigest()[:16]


@pytest.mark.parametrize("sort_clips", [True, False])
@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
@pytest.mark.parametrize("name", sorted({key.split()[0] for key in RECORDED}))
def test_items_equal_the_recorded_ones(name, split, sort_clips, config):
    config = config.replace(sort_clips=sort_clips)
    aligner = ALIGNERS.get(name, "dataset.aligner")(config, split)
    classes = MANY if aligner.takes_batches else ONE
    parts = [part_cls(config, split) for part_cls in classes]
    data = MMDataset(*parts, aligner, seed=3)
    assert digest(data) == RECORDED[f"{name} {split.value} {sort_clips}"]
