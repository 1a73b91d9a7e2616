"""Loading S3D: strictly, with and without its dictionary, and what is said when something is
missing.
"""

import pickle

import numpy as np
import pytest
import torch

from mmpt.errors import CheckpointError, DataError
from mmpt.media.s3d import S3D, load_s3d, read_words

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


def test_without_its_dictionary_the_text_tower_is_left_out(released):
    network, weights, _ = released
    loaded = load_s3d(weights)
    assert len(loaded.state_dict()) == 537 - 5
    clips = torch.rand(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(
            loaded(clips)["video_embedding"], network.eval()(clips)["video_embedding"]
        )


def test_missing_weights_say_where_they_are(tmp_path):
    with pytest.raises(CheckpointError) as error:
        load_s3d(tmp_path / "s3d_howto100m.pth")
    assert "mmpt download s3d" in str(error.value)
    assert "https://www.rocq.inria.fr/cluster-willow/amiech/howto100m/s3d_howto100m.pth" in str(
        error.value
    )
    with pytest.raises(DataError, match=r"amiech/howto100m/s3d_dict\.npy"):
        read_words(tmp_path / "s3d_dict.npy")


@pytest.mark.parametrize("damage", ["absent", "extra", "shape", "foreign"])
def test_other_tensors_are_refused(damage, released, tmp_path):
    state = {
        name: value
        for name, value in released[0].state_dict().items()
        if not name.startswith("text_module")
    }
    if damage == "absent":
        del state["fc.bias"]
    elif damage == "extra":
        state["fc.scale"] = torch.ones(1)
    elif damage == "shape":
        state["fc.bias"] = torch.zeros(513)
    else:
        state = {"model": {"fc.bias": torch.zeros(512)}}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"not S3D's weights"):
        load_s3d(tmp_path / "other.pth")


def test_a_dictionary_of_python_strings_is_read_without_running_code(tmp_path):
    np.save(tmp_path / "objects.npy", np.array(WORDS, dtype=object))
    assert read_words(tmp_path / "objects.npy") == WORDS

    class Evil:
        def __reduce__(self):
            return (pickle.Pickler, (None,))

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object))
    with pytest.raises(DataError, match="_pickle"):
        read_words(tmp_path / "evil.npy")
    np.save(tmp_path / "numbers.npy", np.arange(3))
    with pytest.raises(DataError, match="words"):
        read_words(tmp_path / "numbers.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "objects.npy").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cut\.npy"):
        read_words(tmp_path / "cut.npy")


@pytest.mark.parametrize(
    "shape", [(1, 4, 4, 32, 32), (1, 3, 3, 32, 32), (1, 3, 4, 33, 32), (3, 4, 32, 32)]
)
def test_clips_of_another_layout_are_refused(shape):
    with pytest.raises(DataError, match="even frames"):
        S3D()(torch.zeros(shape))


def test_without_space_to_depth_the_sizes_are_the_same():
    clips = torch.rand(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert S3D(space_to_depth=False, gating=False, num_classes=7).eval()(clips)[
            "video_embedding"
        ].shape == (1, 7)
