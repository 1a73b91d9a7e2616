"""The forms in which videos and texts can be passed to `MMPTModel`.

Accepted forms give the results of a plain contiguous copy. All others give one message.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.errors import DataError
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.media.s3d import S3D
from tests.support.tiny_run import make_run

TEXTS = ["cut the tomato", "", "mix the flour"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MMPTModel:
    torch.manual_seed(0)
    run = make_run(tmp_path_factory.mktemp("inputs") / "run")
    return MMPTModel.from_pretrained(run, s3d=S3D().eval())


def features(seconds: int, dtype: str = "float32") -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((seconds, 512))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(dtype)


def bgr_frames(seconds: int) -> np.ndarray:
    shape = (seconds, 2, 32, 32, 3)
    return np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)


def unaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


class Named(np.ndarray):
    """A subclass of ndarray, as in the results of some libraries."""


LAYOUTS = {
    "negative strides": lambda array: np.flip(np.flip(array).copy()),
    "negative stride of the last axis": lambda array: array[..., ::-1].copy()[
        ..., ::-1
    ],
    "Fortran order": np.asfortranarray,
    "every second row": lambda array: np.repeat(array, 2, axis=0)[::2],
    "read-only": read_only,
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "subclass": lambda array: array.view(Named),
    "torch": torch.from_numpy,
    "torch, transposed": lambda array: torch.from_numpy(array.T.copy()).permute(
        *reversed(range(array.ndim))
    ),
    "torch, expanded": lambda array: torch.from_numpy(array)[None].expand(
        2, *array.shape
    )[0],
}


@pytest.mark.parametrize("seconds", [1, 20])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_features_changes_no_result(model, layout, dtype, seconds):
    rows = features(seconds, dtype)
    given = LAYOUTS[layout](rows)
    assert torch.equal(model.encode_video(given), model.encode_video(rows))
    assert torch.equal(
        model.encode_video([rows, given]), model.encode_video([rows, rows])
    )
    assert torch.equal(
        model.similarity([given], TEXTS), model.similarity([rows], TEXTS)
    )
    alignment = model.align(given, TEXTS)
    expected = model.align(rows, TEXTS)
    np.testing.assert_array_equal(alignment.plan, expected.plan)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_frames_changes_no_result(model, layout):
    frames = bgr_frames(1)
    expected = model.video_features(frames)
    given = LAYOUTS[layout](frames)
    assert torch.equal(model.video_features(given), expected)
    assert torch.equal(model.embed_clips(given), expected)
    unit = LAYOUTS[layout]((frames / 255).astype(np.float32))
    torch.testing.assert_close(model.video_features(unit), expected)


def test_a_reversed_view_of_the_colours_gives_the_result_of_a_copy(model):
    rgb = bgr_frames(9)[..., ::-1]
    copy = np.ascontiguousarray(rgb)
    assert torch.equal(model.encode_video(rgb), model.encode_video(copy))

    caps, cmasks = model.aligner.build_text_seq([237, 136])
    caps, cmasks = caps[None], cmasks[None]
    with torch.no_grad():
        wanted = model(torch.tensor(copy[None]), caps, cmasks, return_score=True)
        given = model(rgb[None], caps.numpy(), cmasks.numpy(), return_score=True)
    assert torch.equal(given["score"], wanted["score"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_vectors_changes_no_score(model, layout):
    videos = features(5)[:, :64].copy()
    texts = features(3)[:, :64].copy()
    expected = torch.from_numpy(videos) @ torch.from_numpy(texts).T
    change = LAYOUTS[layout]
    assert torch.equal(model.similarity(change(videos), change(texts)), expected)


def test_gradients_reach_vectors_and_nothing_else(model):
    rows = torch.from_numpy(features(5)).requires_grad_()
    encoded = model.encode_video(rows)
    assert not encoded.requires_grad
    assert not model.video_features(rows).requires_grad
    assert torch.equal(encoded, model.encode_video(features(5)))
    vectors = model.encode_text(TEXTS).requires_grad_()
    model.similarity(encoded, vectors).sum().backward()
    assert vectors.grad is not None


class Series:
    """An object like a pandas Series: it has one axis, is iterable and has no truth value."""

    ndim = 1

    def __init__(self, values):
        self.values = values

    def __iter__(self):
        return iter(self.values)

    def __bool__(self):
        raise ValueError("ambiguous")


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "generator": lambda values: (value for value in values),
    "dict's keys": lambda values: dict.fromkeys(values).keys(),
    "objects": lambda values: np.array([*values, None], dtype=object)[:-1],
    "Series": Series,
}


@pytest.mark.parametrize("container", [*CONTAINERS, "NumPy", "NumPy's strings"])
def test_texts_may_be_in_any_sequence(model, container):
    change = CONTAINERS | {
        "NumPy": np.array,
        "NumPy's strings": lambda v: list(np.array(v)),
    }
    given, expected = change[container], model.encode_text(TEXTS)
    assert torch.equal(model.encode_text(given(TEXTS)), expected)
    videos = model.encode_video(features(4))
    assert torch.equal(model.similarity(videos, given(TEXTS)), videos @ expected.T)
    plan = model.align(features(4), TEXTS).plan
    np.testing.assert_array_equal(model.align(features(4), given(TEXTS)).plan, plan)


def test_a_single_text_may_be_a_numpy_string(model):
    expected = model.encode_text(TEXTS[:1])
    assert torch.equal(model.encode_text(np.str_(TEXTS[0])), expected)


def test_a_lone_surrogate_is_read_as_in_training(model):
    assert torch.equal(model.encode_text("cut \ud83d"), model.encode_text("cut ?"))


@pytest.mark.parametrize("container", CONTAINERS)
def test_videos_may_be_in_any_sequence(model, container, tmp_path):
    rows = features(3)
    np.save(tmp_path / "x.npy", rows)
    expected = model.encode_video([rows, rows])
    paths = [str(tmp_path / "x.npy"), tmp_path / "x.npy"]
    assert torch.equal(model.encode_video(CONTAINERS[container](paths)), expected)
    assert torch.equal(model.encode_video(np.array(paths[:1] * 2)), expected)
    assert torch.equal(model.encode_video(np.str_(paths[0])), model.encode_video(rows))
    if container != "dict's keys":
        assert torch.equal(
            model.encode_video(CONTAINERS[container]([rows, rows])), expected
        )


def test_align_takes_a_list_of_one_video(model):
    plan = model.align(features(4), TEXTS).plan
    np.testing.assert_array_equal(model.align([features(4)], TEXTS).plan, plan)
    np.testing.assert_array_equal(model.align(features(4)[None], TEXTS).plan, plan)


class Table:
    """An object like a pandas DataFrame, which iterates over the names of its columns."""

    ndim = 2

    def __iter__(self):
        return iter(["column"])


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (None, "is None"),
        ([], "is empty"),
        (np.array([], dtype=str), "is empty"),
        (b"cut", "is bytes"),
        (3, "is int"),
        ({"a": "b"}, "is dict"),
        ({"a"}, "is set"),
        (Table(), "is Table"),
        (["a", None], r"texts\[1\] is None"),
        (Series(["a", float("nan")]), r"texts\[1\] is float"),
        (["a", b"b"], r"texts\[1\] is bytes"),
        ([["a"]], r"texts\[0\] is list"),
        (np.array([b"a"]), r"texts\[0\] is bytes_"),
    ],
)
def test_all_methods_have_the_same_message_for_bad_texts(model, texts, found):
    for call in (model.encode_text, lambda t: model.similarity(features(2)[:, :64], t)):
        with pytest.raises(
            DataError, match=rf"^texts must be one or more strings, but {found}\.$"
        ):
            call(texts)
    in_sentences = found.replace("texts", "sentences")
    with pytest.raises(
        DataError, match=rf"^sentences must be .* strings, but {in_sentences}\.$"
    ):
        model.align(features(2), texts)


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (None, r"^videos must be at least one video \(paths.*, but is None\.$"),
        ([], "^videos must be at least one video .*, but is empty"),
        (b"a.npy", "^videos must be .*, but is bytes"),
        (3, "^videos must be .*, but is int"),
        ({"a": 1}, "^videos must be .*, but is dict"),
        ([None], r"^videos\[0\]: must be features, .* but is None\.$"),
        ([features(2), 3], r"^videos\[1\]: must be features, .* but is int\.$"),
        (features(2).tolist(), r"^videos\[0\]: .* but is list\.$"),
        (features(2)[0], r"^videos\[0\]: .* but is float32\.$"),
        (torch.tensor(1.0), r"^videos: .* but is float32 \[\]\.$"),
        (features(2).astype(np.int32), r"^videos: .* but is int32 \[2, 512\]\.$"),
        (features(2) > 0, r"^videos: .* but is bool \[2, 512\]\.$"),
        (features(2) + 0j, r"^videos: .* but is complex64 \[2, 512\]\.$"),
        (features(2).astype(object), r"^videos: .* but is object \[2, 512\]\.$"),
        (
            bgr_frames(1).astype(np.int64),
            r"^videos: .* but is int64 \[1, 2, 32, 32, 3\]\.$",
        ),
        (
            np.moveaxis(bgr_frames(1), -1, 2),
            r"^videos: .* but is uint8 \[1, 2, 3, 32, 32\]\.$",
        ),
        (
            bgr_frames(1).astype(float),
            r"^videos: frames must be uint8, .* divide by 255",
        ),
        (np.full((2, 512), 1e300), r"^videos: features must be finite, but 2 of 2"),
        (
            np.full((1, 512), 1e30),
            r"^videos: .* must be finite, but 1 of 1 hold NaN or infinity",
        ),
    ],
)
def test_all_methods_have_the_same_message_for_bad_videos(model, videos, message):
    with pytest.raises(DataError, match=message):
        model.encode_video(videos)
    if not (isinstance(videos, np.ndarray | torch.Tensor) and videos.ndim == 2):
        with pytest.raises(DataError, match=message):
            model.similarity(videos, TEXTS)
    if r"videos\[" not in message:
        with pytest.raises(DataError, match=message.replace("videos", "video")):
            model.align(videos, TEXTS)


def test_bad_vectors_are_refused(model):
    vectors = model.encode_text(TEXTS).numpy()
    message = r"must be vectors, floats \[N, D\], but is "
    with pytest.raises(
        DataError, match=r"^texts must be .*, but texts\[0\] is float32\.$"
    ):
        model.similarity(vectors, vectors[0])
    with pytest.raises(DataError, match=rf"^videos {message}int64 \[3, 64\]"):
        model.similarity(vectors.astype(int), vectors)
    with pytest.raises(DataError, match=rf"^texts {message}str32 \[1, 2\]"):
        model.similarity(vectors, np.array([["a", "b"]]))
    with pytest.raises(DataError, match=r"^texts: vectors must be finite"):
        model.similarity(vectors, vectors * np.nan)


def test_other_bad_arguments_are_refused(model):
    for batch_size in (0, 2.5, None):
        with pytest.raises(
            DataError, match="`batch_size` must be a whole number of at least 1"
        ):
            model.encode_video(features(2), batch_size=batch_size)
    for change in ({"epsilon": 0}, {"iterations": 0}, {"epsilon": float("nan")}):
        with pytest.raises(
            DataError, match="`epsilon` must be above 0 and `iterations` at least"
        ):
            model.align(features(2), TEXTS, **change)
    with pytest.raises(DataError, match="video must be one video, but is 2"):
        model.align([features(2), features(3)], TEXTS)
    with pytest.raises(
        DataError, match=r"^video_frames must be uint8.* but is None\.$"
    ):
        model(None, None, None)


def test_a_damaged_file_is_reported(model, tmp_path: Path):
    np.save(tmp_path / "narrow.npy", features(2)[:, :100])
    with pytest.raises(DataError, match=r"narrow\.npy: features must be 512-d"):
        model.encode_video(tmp_path / "narrow.npy")


def test_numbers_beyond_the_range_of_the_model_are_an_error(
    tmp_path: Path,
):
    model = MMPTModel.from_pretrained(make_run(tmp_path / "run"), dtype=torch.float16)
    with torch.no_grad():
        layer = model.fusion.text_encoder.encoder.layer[0]
        layer.intermediate.dense.bias.fill_(6e4)
        layer.output.dense.weight.fill_(6e4)
    with pytest.raises(
        DataError, match=r"^texts: .* 3 of 3 hold NaN .* wider type \(`dtype`"
    ):
        model.encode_text(TEXTS)
