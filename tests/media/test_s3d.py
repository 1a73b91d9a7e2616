"""S3D's blocks against loops over single numbers, and its loading: strictly, with and without its
dictionary, and what is said when something is missing.
"""

import itertools

import numpy as np
import pytest
import torch

from mmpt.errors import CheckpointError, DataError
from mmpt.media.s3d import S3D, load_s3d, read_words
from mmpt.media.s3d_layers import SamePool3D, SelfGating, space_to_depth

WORDS = ["cut", "the", "tomato", "it's"]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Weights and dictionary as they are published, with random numbers; the file holds the text
    tower.
    """
    folder = tmp_path_factory.mktemp("s3d")
    network = S3D(WORDS)
    torch.save(network.state_dict(), folder / "s3d_howto100m.pth")
    np.save(folder / "s3d_dict.npy", np.array(WORDS))
    return network, folder / "s3d_howto100m.pth", folder / "s3d_dict.npy"


def test_with_its_dictionary_every_tensor_is_loaded(released):
    network, weights, words = released
    loaded = load_s3d(weights, words)
    assert not loaded.training
    assert loaded.word_ids == {"cut": 1, "the": 2, "tomato": 3, "it's": 4}
    ours, theirs = loaded.state_dict(), network.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@torch.no_grad()
def test_without_its_dictionary_the_text_tower_is_left_out(released):
    network, weights, _ = released
    loaded = load_s3d(weights)
    assert len(loaded.state_dict()) == 537 - 5
    clips = torch.rand(1, 3, 4, 32, 32)
    ours, theirs = (one(clips)["video_embedding"] for one in (loaded, network.eval()))
    assert torch.equal(ours, theirs)


def test_missing_weights_say_where_they_are(tmp_path):
    with pytest.raises(CheckpointError, match=r"s3d_howto100m\.pth: .* `mmpt download s3d`"):
        load_s3d(tmp_path / "s3d_howto100m.pth")
    with pytest.raises(DataError, match=r"s3d_dict\.npy: .* `mmpt download s3d`"):
        read_words(tmp_path / "s3d_dict.npy")


@pytest.mark.parametrize(
    "change",
    [{"fc.bias": None}, {"fc.scale": torch.ones(1)}, {"fc.bias": torch.zeros(513)}, {"model": {}}],
)
def test_other_tensors_are_refused(change, released, tmp_path):
    state = released[0].state_dict() | change
    present = {name: value for name, value in state.items() if value is not None}
    torch.save(present, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"not S3D's weights"):
        load_s3d(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "shape", [(1, 4, 4, 32, 32), (1, 3, 3, 32, 32), (1, 3, 4, 33, 32), (3, 4, 32, 32)]
)
def test_clips_of_another_layout_are_refused(shape):
    with pytest.raises(DataError, match="even frames"):
        S3D()(torch.zeros(shape))


@torch.no_grad()
def test_without_space_to_depth_the_sizes_are_the_same():
    network = S3D(space_to_depth=False, gating=False, num_classes=7).eval()
    assert network(torch.rand(1, 3, 4, 32, 32))["video_embedding"].shape == (1, 7)


# ---- blocks


def test_space_to_depth_puts_offsets_before_colours():
    x = torch.randn(2, 3, 4, 6, 2, generator=torch.Generator().manual_seed(0))
    out = space_to_depth(x)
    assert out.shape == (2, 24, 2, 3, 1)
    for dt, dh, dw, c in itertools.product(range(2), range(2), range(2), range(3)):
        channel = ((dt * 2 + dh) * 2 + dw) * 3 + c
        assert torch.equal(out[:, channel], x[:, c, dt::2, dh::2, dw::2])


@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))]
)
@pytest.mark.parametrize("size", [(4, 6, 8), (3, 5, 7), (1, 2, 2)])
def test_pool_pads_behind_and_covers_every_place(kernel, stride, size):
    x = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(1))
    out = SamePool3D(kernel, stride)(x)
    counts = [-(-n // s) for n, s in zip(size, stride, strict=True)]
    assert list(out.shape[2:]) == counts
    for place in itertools.product(*(range(n) for n in counts)):
        window = tuple(
            slice(p * s, p * s + k) for p, s, k in zip(place, stride, kernel, strict=True)
        )
        assert torch.equal(out[(..., *place)], x[(..., *window)].amax(dim=(2, 3, 4)))


@torch.no_grad()
def test_gate_is_one_number_per_channel():
    gating = SelfGating(4)
    x = torch.rand(2, 4, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    means = torch.stack([torch.stack([x[n, c].mean() for c in range(4)]) for n in range(2)])
    gate = 1 / (1 + torch.exp(-(means @ gating.fc.weight.T + gating.fc.bias)))
    for n, c in itertools.product(range(2), range(4)):
        torch.testing.assert_close(gating(x)[n, c], x[n, c] * gate[n, c])
