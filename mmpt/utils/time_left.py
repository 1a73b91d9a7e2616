"""The estimated time until a training run ends."""


def share_done(epochs: float, max_epoch: int, updates: int, max_update: int) -> float:
    """Returns the share of a run that is done. A limit of 0 is no limit."""
    share_of_epochs = epochs / max_epoch if max_epoch else 0.0
    share_of_updates = updates / max_update if max_update else 0.0
    return max(share_of_epochs, share_of_updates)


def minutes_left(done: float, done_at_start: float, elapsed_s: float) -> float:
    """Returns the minutes to the end of a run at the rate so far; 0 if there is no rate yet.

    Args:
        done: share of the run that is done.
        done_at_start: share that was done when the measurement began.
        elapsed_s: seconds since then.
    """
    if done <= done_at_start:
        return 0.0
    return elapsed_s / 60 * (1 - done) / (done - done_at_start)
