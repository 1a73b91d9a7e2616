"""Batches of clips: their shapes, their size if memory is full, and the features of clips."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.errors import DataError, DeviceMemoryError
from mmpt.media.clip_encoder import ClipEncoder, open_network
from tests.support.extract_jobs import MeanColours


def test_inputs_of_several_shapes_cannot_be_a_batch():
    encoder = ClipEncoder(MeanColours(), torch.device("cpu"))
    encoder.batch_size = 2
    with pytest.raises(DataError, match=r"one shape, but returns \[2\] and \[3\]"):
        encoder.start([torch.zeros(2), torch.zeros(3)])


class Greedy(MeanColours):
    """An encoder that has memory for at most three clips."""

    def __init__(self, fits: int = 3):
        self.fits = fits
        self.sizes: list[int] = []

    def encode(self, inputs: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(inputs))
        if len(inputs) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().encode(inputs)


def test_batches_are_halved_if_memory_is_full(caplog):
    """A CPU has no batches, so the test sets their size."""
    clips = [torch.full((2, 3), float(value)) for value in range(11)]
    greedy = Greedy()
    encoder = ClipEncoder(
        greedy, torch.device("cpu"), name="greedy", halves_batch_on_oom=True
    )
    encoder.batch_size = 8
    features = encoder.run(iter(clips))
    np.testing.assert_array_equal(features, torch.stack(clips).flatten(1))
    assert greedy.sizes == [1, 8, 4, *[2] * 6]
    assert "greedy now uses a batch size of 4" in caplog.text
    greedy.fits = 0
    with pytest.raises(DeviceMemoryError, match=r"size of 1\. .*`--device cpu`"):
        encoder.run(clips)


def test_batches_of_extraction_are_not_halved():
    """The bytes of a file must not depend on the memory of the GPU."""
    encoder = ClipEncoder(Greedy(), torch.device("cpu"), name="greedy")
    encoder.batch_size = 8
    with pytest.raises(
        DeviceMemoryError, match=r"of 8\. Give a smaller `--batch_size`"
    ):
        encoder.start([torch.zeros(2, 3)])


def test_random_weights_give_clips_different_features():
    network, _ = open_network(Path("none"), random_weights=True)
    generator = torch.Generator().manual_seed(0)
    clips = torch.rand(2, 3, 6, 32, 32, generator=generator)
    clips[1] *= 0.5
    with torch.no_grad():
        features = network(clips)["video_embedding"]
    first, second = torch.nn.functional.normalize(features, dim=1).half()
    differs = first != second
    assert differs.float().mean() > 0.5  # 1/512 with the initial weights of torch
