"""The list of misplaced sentences agrees with the metric."""

import numpy as np

from mmpt.endtasks.how2align.data import Sentence
from mmpt.endtasks.how2align.evaluation import AlignedVideo
from mmpt.endtasks.how2align.report import _misses


def test_a_hit_of_the_metric_is_not_listed():
    """The metric rounds the times of a sentence outwards: 2.4 to 3.2 s are seconds 2 to 4."""
    spans_s = np.array([[2.4, 3.2]] * 3)
    sentences = [Sentence(True, 2.4, 3.2, name) for name in ("early", "late", "missed")]
    similarity = np.zeros((3, 8), np.float32)
    similarity[[0, 1, 2], [2, 4, 5]] = 1
    everything = np.ones((3, 8), bool)
    video = AlignedVideo("v", similarity, everything, everything[:, 0], spans_s)
    assert [miss["words"] for miss in _misses(video, sentences)] == ["missed"]
