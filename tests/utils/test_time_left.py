"""The completed share of a run, and the remaining minutes."""

import pytest

from mmpt.utils.time_left import minutes_left, share_done


@pytest.mark.parametrize(
    ("max_epoch", "max_update", "share"),
    [(4, 0, 0.5), (0, 30, 2 / 3), (4, 30, 2 / 3), (2, 30, 1), (0, 0, 0)],
)
def test_progress_is_measured_by_the_limit_that_is_reached_first(
    max_epoch: int, max_update: int, share: float
) -> None:
    done = share_done(2, max_epoch, 20, max_update)
    assert done == pytest.approx(share)


@pytest.mark.parametrize(("update", "left"), [(5, 0), (10, 4), (20, 2), (30, 0)])
def test_the_minutes_left_are_estimated_from_the_rate_so_far(
    update: int, left: float
) -> None:
    """A run continues after 5 of 30 updates and needs a minute for 5 of them."""
    minutes = minutes_left(update / 30, 5 / 30, elapsed_s=12 * (update - 5))
    assert minutes == pytest.approx(left)


def test_a_run_without_an_end_has_no_minutes_left() -> None:
    assert minutes_left(0, 0, elapsed_s=100) == 0
