"""Building an index: kills at any time, extension, and mistakes."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.errors import DataError
from mmpt.inference.index_folder import IndexFolder, IndexSettings
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.moment_writer import open_writer
from mmpt.utils.lock import exclusive
from tests.support.known_towers import known_model
from tests.support.tiny_run import F, make_run


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MMPTModel:
    return known_model(make_run(tmp_path_factory.mktemp("writer") / "run"))


def video(number: int) -> tuple[str, torch.Tensor]:
    """Returns the name and the features of a video. They differ in length."""
    generator = torch.Generator().manual_seed(number)
    return f"v{number}", torch.randn(5 + 11 * number, 512, generator=generator)


def write(folder: Path, model: MMPTModel, videos, **options) -> IndexSettings:
    with open_writer(
        folder, model, source="here", checkpoint="best.pt", **options
    ) as writer:
        new = [(name, rows) for name, rows in videos if name not in writer]
        writer.add(new, batch_size=3)
        return writer.finish()


def contents(folder: Path) -> dict[str, bytes]:
    """The content of every file of an index."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_vectors_are_the_embeddings_of_windows(model, tmp_path):
    settings = write(tmp_path / "x", model, [video(0), video(3)], stride_s=6)
    assert (settings.num_videos, settings.num_windows) == (2, 6)
    assert (settings.window_s, settings.stride_s) == (F, 6)
    vectors = np.fromfile(tmp_path / "x" / "vectors.f16", np.float16)
    rows = vectors.reshape(6, settings.hidden_size)
    features = video(3)[1][:, : settings.hidden_size]
    starts_and_ends = [(0, 16), (6, 22), (12, 28), (18, 34), (24, 38)]
    for row, (start, end) in zip(rows[1:], starts_and_ends, strict=True):
        expected = features[start:end].mean(dim=0)
        # The rounding error is at most half of the last bit of float16.
        np.testing.assert_allclose(row, expected, atol=5e-4)


def killed_run(folder: Path, model: MMPTModel, videos, num_read: int) -> None:
    """Runs in a child process, which is killed when this many videos have been read."""

    def until_killed():
        for number, item in enumerate(videos):
            if number == num_read:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    child = os.fork()
    if not child:
        # The OpenMP threads of the parent do not exist here, and waiting for them never ends.
        torch.set_num_threads(1)
        with open_writer(folder, model, source="here", checkpoint="best.pt") as writer:
            writer.add(until_killed(), batch_size=3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("num_read", [0, 3, 5])
@pytest.mark.parametrize("num_bytes", [0, 77, 6000])
def test_a_killed_run_continues(model, tmp_path, num_read, num_bytes):
    videos = [video(number) for number in range(6)]
    write(tmp_path / "whole", model, videos)
    part = tmp_path / "part"
    killed_run(part, model, videos, num_read)
    # The kill may have come in the middle of a write.
    with open(part / "vectors.f16", "ab") as file:
        file.write(bytes(num_bytes))
    with open(part / "videos.jsonl", "ab") as file:
        file.write(b'{"video": "v9", "sec' if num_bytes else b"")
    with open_writer(part, model, source="here", checkpoint="best.pt") as writer:
        num_kept = writer.num_videos
    # Batches have 3 windows, so at most 2 windows of the last videos were not embedded.
    assert num_kept >= num_read - 2
    assert write(part, model, videos).num_videos == 6
    assert contents(part) == contents(tmp_path / "whole")


def test_names_without_vectors_are_embedded_again(model, tmp_path):
    # This may happen after a power failure.
    videos = [video(number) for number in range(4)]
    write(tmp_path / "whole", model, videos)
    part = tmp_path / "part"
    with open_writer(part, model, source="here", checkpoint="best.pt") as writer:
        writer.add(videos)
    os.truncate(part / "vectors.f16", 100)
    write(part, model, videos)
    assert contents(part) == contents(tmp_path / "whole")


def test_an_index_is_extended_with_new_videos_only(model, tmp_path):
    folder = tmp_path / "x"
    first = [video(number) for number in range(4)]
    write(folder, model, first)
    before = contents(folder)
    assert write(folder, model, first) == IndexFolder(folder).read_settings()
    assert contents(folder) == before

    # The features of old videos are not read again.
    more = [(name, None) for name, _ in first] + [video(4)]
    extended = write(folder, model, more)
    write(tmp_path / "whole", model, [*first, video(4)])
    assert extended.num_videos == 5
    assert extended.num_trained < extended.num_windows
    after = contents(folder)
    whole = contents(tmp_path / "whole")
    del after["index.json"], whole["index.json"]
    assert after == whole
    assert len(list(folder.glob("*.faiss"))) == 1


def test_folders_of_videos_are_added(model, tmp_path):
    old = write(tmp_path / "x", model, [video(1)], folders=["a"])
    assert old.folders == ("a",)
    # They are added even if no video is new.
    new = write(tmp_path / "x", model, [video(1)], folders=["b", "a"])
    assert new == IndexFolder(tmp_path / "x").read_settings()
    assert new == old.model_copy(update={"folders": ("a", "b")})


def test_an_index_that_doubled_is_trained_again(model, tmp_path):
    built = []
    folder = tmp_path / "x"
    for numbers in ([0, 1, 2, 3], [4], [5, 6, 7]):
        settings = write(folder, model, [video(number) for number in numbers])
        built.append((settings.num_windows, settings.num_trained))
    assert built == [(9, 9), (15, 9), (40, 40)]


def test_a_chosen_type_is_kept_until_another_is_chosen(model, tmp_path):
    folder = tmp_path / "x"
    for numbers, index_type, expected in (
        ([0, 1, 2], None, "Flat"),
        ([], "SQ8", "SQ8"),
        ([3, 4, 5, 6], None, "SQ8"),
        ([], "IVF2,Flat", "IVF2,Flat"),
    ):
        videos = [video(number) for number in numbers]
        settings = write(folder, model, videos, index_type=index_type)
        assert settings.index_type == expected
    assert settings.num_videos == 7


def test_the_current_type_can_be_chosen_without_new_videos(model, tmp_path):
    folder = tmp_path / "x"
    assert write(folder, model, [video(0)]).is_default_type
    settings = write(folder, model, [], index_type="Flat")
    assert not settings.is_default_type
    assert IndexFolder(folder).read_settings() == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_s": F + 1}, "max_video_len` \\(16\\), but are 8 and 17 seconds"),
        (
            {"window_s": 4, "stride_s": 5},
            "`--stride` and `--window` must .* but are 5 and 4 seconds",
        ),
        ({"index_type": "Foo"}, "could not parse index string Foo"),
    ],
)
def test_invalid_options_leave_no_folder(model, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        write(tmp_path / "x", model, [video(0)], **options)
    assert not (tmp_path / "x").exists()


def test_another_model_or_window_cannot_extend(model, tmp_path):
    write(tmp_path / "x", model, [video(0)])
    # The stride of the index, 8, does not fit this window either. The window is the mistake.
    with pytest.raises(
        DataError,
        match=r"own model and windows .* window 16 s, stride 8 s\), but .*, window 5 s, stride 8 s."
        r" .* leave out `--window` and `--stride`",
    ):
        write(tmp_path / "x", model, [video(1)], window_s=5)
    other = MMPTModel(
        known_model(Path(model.dataset_config.bert_name).parent).fusion.double(),
        model.dataset_config,
        model.model_config,
    )
    with pytest.raises(DataError, match="can only be extended with its own model"):
        write(tmp_path / "x", other, [video(1)])


def test_other_mistakes(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").touch()
    with pytest.raises(DataError, match=r"an index or an empty folder, but holds 'me"):
        write(tmp_path / "photos", model, [video(0)])
    with pytest.raises(DataError, match="but is a file"):
        write(tmp_path / "photos" / "me.png", model, [video(0)])
    with pytest.raises(DataError, match="at least one video, but has none"):
        write(tmp_path / "x", model, [])
    with pytest.raises(DataError, match="v0: every video of an index must have a name"):
        write(tmp_path / "x", model, [video(0), video(0)])
    with pytest.raises(DataError, match=r"v1: vectors in float16 must be finite"):
        write(tmp_path / "x", model, [("v1", torch.full((3, 512), 1e5))])
    with (
        exclusive(tmp_path / "x" / ".lock", "a test"),
        pytest.raises(DataError, match="another process builds this index"),
    ):
        write(tmp_path / "x", model, [video(2)])


def test_a_damaged_index_is_refused(model, tmp_path):
    folder = tmp_path / "x"
    write(folder, model, [video(0), video(1)])
    os.truncate(folder / "vectors.f16", 100)
    with pytest.raises(DataError, match="of 2 videos, but has the vectors of 0"):
        write(folder, model, [video(2)])
    (folder / "videos.jsonl").write_text('{"video": 3}\n')
    with pytest.raises(DataError, match=r"videos\.jsonl: is damaged"):
        write(folder, model, [video(2)])
    (folder / "index.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match=r"index\.json: `model` must be given|format"):
        write(folder, model, [video(2)])
