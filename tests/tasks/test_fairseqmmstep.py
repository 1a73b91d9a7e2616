"""The count of updates whose loss is not finite. Tests of whole runs cover the rest of a step."""

from pathlib import Path

import pytest

from mmpt.config.schema import LossConfig
from mmpt.tasks.fairseqmmstep import NonFiniteBatches, TooManySkippedError


def skip_one(batches: NonFiniteBatches) -> bool:
    batches.mark()
    batches.agree()
    return batches.take_skipped()


def test_only_a_skipped_update_can_exceed_the_limit(tmp_path: Path) -> None:
    config = LossConfig(on_nonfinite="skip", max_skipped=2)
    batches = NonFiniteBatches(config, tmp_path, 0, in_any=lambda is_bad: is_bad)
    assert not batches.take_skipped()
    assert skip_one(batches)
    assert skip_one(batches)
    assert batches.num_skipped == 2
    # A run that continues with a lower limit trains on good batches.
    assert batches.state_dict() == {"num_skipped": 2}
    batches.load_state_dict({"num_skipped": 5})
    assert not batches.take_skipped()
    with pytest.raises(TooManySkippedError, match=r"6 updates, but .* allows 2"):
        skip_one(batches)
