"""`mmpt embed`: the vectors that it writes, and errors, after which no file is left."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli import embed
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.media.s3d import S3D
from tests.support.tiny_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("embed") / "run")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Features of three videos, one of them in a sub-folder, and a hidden file of macOS."""
    rng = np.random.default_rng(0)
    for name, seconds in (("b", 5), ("a.x", 20), ("deep/c", 3)):
        path = tmp_path / "features" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.standard_normal((seconds, 512)).astype(np.float16))
    (tmp_path / "features/._b.npy").write_bytes(b"no array")
    return tmp_path / "features"


def call(run: Path, out: Path, *arguments: object) -> int:
    return embed.main(
        [
            "--model",
            str(run),
            "--out",
            str(out),
            "--device",
            "cpu",
            *map(str, arguments),
        ]
    )


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_features_get_the_vectors_of_encode_video(run, folder, tmp_path, batch_size):
    assert (
        call(
            run, tmp_path / "out.npz", "--features", folder, "--batch-size", batch_size
        )
        == 0
    )
    out = np.load(tmp_path / "out.npz")
    assert out["ids"].tolist() == ["a.x", "b", "deep/c"]
    model = MMPTModel.from_pretrained(run)
    expected = model.encode_video([folder / f"{name}.npy" for name in out["ids"]])
    # Measured 1e-6.
    np.testing.assert_allclose(out["vectors"], expected, rtol=0, atol=1e-5)
    assert len(str(out["fingerprint"])) == 64


def test_texts_get_the_vectors_of_encode_text(run, tmp_path):
    (tmp_path / "texts.txt").write_bytes(
        "\ufeffcut the tomato\n\n  mix\u2028é  \r\n".encode()
    )
    assert (
        call(run, tmp_path / "new" / "out.npz", "--texts", tmp_path / "texts.txt") == 0
    )
    out = np.load(tmp_path / "new" / "out.npz")
    assert out["ids"].tolist() == ["cut the tomato", "mix\u2028é"]
    expected = MMPTModel.from_pretrained(run).encode_text(
        ["cut the tomato", "mix\u2028é"]
    )
    np.testing.assert_allclose(out["vectors"], expected, rtol=0, atol=1e-5)


def test_long_texts_are_reported_once(run, tmp_path, caplog):
    (tmp_path / "texts.txt").write_text(f"cut\n{'cut ' * 3000}\n" * 3)
    options = ["--texts", tmp_path / "texts.txt", "--batch-size", 2]
    assert call(run, tmp_path / "out.npz", *options) == 0
    assert caplog.text.count("3 of 6 texts were cut to their first") == 1
    assert caplog.text.count("were cut to") == 1


def test_a_broken_file_is_an_error_or_is_left_out(
    run, folder, tmp_path, capsys, caplog
):
    (folder / "b.npy").write_bytes(b"\x93NUMPY broken")
    out = tmp_path / "out.npz"
    assert call(run, out, "--features", folder) == 2
    message = capsys.readouterr().err
    assert "b.npy" in message
    assert "--skip-broken" in message
    assert list(tmp_path.glob("*out.npz*")) == []
    with caplog.at_level("WARNING"):
        assert call(run, out, "--features", folder, "--skip-broken") == 0
    assert "1 of 3 files could not be read" in caplog.text
    assert np.load(out)["ids"].tolist() == ["a.x", "deep/c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--features {tmp}/absent",
            "absent: must be a folder with .npy files, but does not exist.",
        ),
        (
            "--features {tmp}",
            "must be a folder with .npy files, but has none. `mmpt pack`",
        ),
        (
            "--features {tmp}/good.txt",
            "good.txt: must be a folder with .npy files, but is",
        ),
        ("--videos {tmp}/twice", "has the same id as"),
        ("--texts {tmp}/latin.txt", "UTF-8"),
        ("--texts {tmp}/empty.txt", "holds none"),
        ("--texts {tmp}/good.txt --features {tmp}", "exactly one of"),
        ("--texts {tmp}/good.txt --device toaster", "--device toaster"),
        ("--texts {tmp}/good.txt --checkpoint checkpoint7.pt", "checkpoint7.pt"),
        ("--texts {tmp}/good.txt --out {tmp}/out.csv", "npz"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    run, tmp_path, capsys, arguments, message
):
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "good.txt").write_text("cut\n")
    (tmp_path / "twice").mkdir()
    for name in ("a.mp4", "a.webm", "b.txt"):
        (tmp_path / "twice" / name).touch()
    before = sorted(tmp_path.iterdir())
    assert call(run, tmp_path / "out.npz", *arguments.format(tmp=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_videos_are_decoded_and_embedded(run, tmp_path, caplog):
    pytest.importorskip("av")
    from tests.support.videos import regular_times, write_video

    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "text.mp4").write_text("not a video")
    write_video(videos / "clip.mp4", regular_times(0.5))
    torch.manual_seed(0)
    weights = tmp_path / "s3d.pth"
    network = S3D()
    torch.save(network.state_dict(), weights)
    out = tmp_path / "out.npz"
    assert call(run, out, "--s3d", weights, "--videos", videos, "--skip-broken") == 0
    assert "1 of 2 files could not be read" in caplog.text
    model = MMPTModel.from_pretrained(run, s3d=network.eval())
    rows = model.video_features(videos / "clip.mp4")
    assert rows.shape == (1, 512)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(1))
    assert np.load(out)["ids"].tolist() == ["clip"]
    np.testing.assert_allclose(
        np.load(out)["vectors"], model.encode_video(rows), rtol=0, atol=1e-5
    )
