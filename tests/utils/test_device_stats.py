"""The peak performance of devices."""

import torch

from mmpt.utils.device_stats import PEAK_TFLOPS, peak_tflops


def test_the_peak_of_a_cpu_is_unknown() -> None:
    assert peak_tflops(torch.device("cpu")) is None
    assert min(PEAK_TFLOPS.values()) > 0
