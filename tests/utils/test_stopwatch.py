"""Times of the parts of a job, with a clock that the test controls."""

import pytest

from mmpt.utils import stopwatch


def test_times_are_added_and_parts_keep_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter([0.0, 60.0, 60.0, 60.5, 70.0, 71.0])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(now))
    watch = stopwatch.Stopwatch()
    with watch.timed("embed"):
        pass
    with watch.timed("gather"):
        pass
    with pytest.raises(KeyError), watch.timed("embed"):
        raise KeyError
    watch.remark("embed", "205 videos/s")
    assert watch.seconds == {"embed": 61.0, "gather": 0.5}
    assert watch.total == 61.5
    assert str(watch) == "embed 61.0 s (205 videos/s), gather 0.5 s"
