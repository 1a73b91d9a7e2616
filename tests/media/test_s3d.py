"""Tests of loading S3D. tests/parity/test_s3d.py tests its numbers."""

import numpy as np
import pytest
import torch

from mmpt.errors import CheckpointError, DataError
from mmpt.media.s3d import S3D, load_s3d, read_words

WORDS = ["cut", "the", "tomato", "it's"]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Returns a network with random weights, and the paths of its weights and dictionary.

    The files have the published form. The weights include the text tower.
    """
    folder = tmp_path_factory.mktemp("s3d")
    network = S3D(WORDS)
    torch.save(network.state_dict(), folder / "s3d_howto100m.pth")
    np.save(folder / "s3d_dict.npy", np.array(WORDS))
    return network, folder / "s3d_howto100m.pth", folder / "s3d_dict.npy"


@pytest.mark.slow
def test_every_tensor_is_loaded_if_there_is_a_dictionary(released):
    network, weights, words = released
    loaded = load_s3d(weights, words)
    assert not loaded.training
    assert loaded.word_ids == {"cut": 1, "the": 2, "tomato": 3, "it's": 4}
    ours = loaded.state_dict()
    theirs = network.state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


@torch.no_grad()
def test_the_text_tower_is_left_out_without_the_dictionary(released):
    network, weights, _ = released
    loaded = load_s3d(weights)
    assert len(loaded.state_dict()) == 537 - 5
    clips = torch.rand(1, 3, 4, 32, 32)
    ours = loaded(clips)["video_embedding"]
    theirs = network.eval()(clips)["video_embedding"]
    assert torch.equal(ours, theirs)


def test_the_error_for_missing_files_names_the_download_command(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"s3d_howto100m\.pth: .* `mmpt download s3d`"
    ):
        load_s3d(tmp_path / "s3d_howto100m.pth")
    with pytest.raises(DataError, match=r"s3d_dict\.npy: .* `mmpt download s3d`"):
        read_words(tmp_path / "s3d_dict.npy")


@pytest.mark.parametrize(
    "change",
    [
        {"fc.bias": None},
        {"fc.scale": torch.ones(1)},
        {"fc.bias": torch.zeros(513)},
        {"model": {}},
    ],
)
def test_weights_with_other_keys_or_shapes_are_rejected(change, released, tmp_path):
    state = released[0].state_dict() | change
    present = {name: value for name, value in state.items() if value is not None}
    torch.save(present, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"not S3D's weights"):
        load_s3d(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "shape", [(1, 4, 4, 32, 32), (1, 3, 3, 32, 32), (1, 3, 4, 33, 32), (3, 4, 32, 32)]
)
def test_clips_of_another_shape_are_rejected(shape):
    with pytest.raises(DataError, match="even frames"):
        S3D()(torch.zeros(shape))
