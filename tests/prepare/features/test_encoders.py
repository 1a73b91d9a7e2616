"""Encoders of features. The tests read frames and models themselves, and compare the features."""

import sys
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
import torch
import transformers

from mmpt.errors import CheckpointError, DataError
from mmpt.media.encoders import TimmEncoder, open_encoder, pooled
from mmpt.shards.feature_info import read_feature_info
from tests.support.extract_jobs import SECONDS
from tests.support.tiny_encoders import MAKERS, NUM_FRAMES, save_encoder

WIDTHS = {"clip": 24, "siglip": 16, "dinov2": 16, "videomae": 16, "xclip": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("encoders")
    return {kind: save_encoder(kind, top / kind) for kind in MAKERS}


def shown_at(path: Path, times_s: list[float]) -> list[np.ndarray]:
    """Returns the frames that a player shows at these times."""
    with av.open(str(path)) as file:
        frames = [
            (frame.time, frame.to_ndarray(format="rgb24"))
            for frame in file.decode(video=0)
        ]
    shown = []
    for time_s in times_s:
        pixels = frames[0][1]
        for start_s, candidate in frames:
            if start_s < time_s:
                pixels = candidate
        shown.append(pixels)
    return shown


def naive_features(folder: Path, video: Path, num_rows: int, fps: float) -> np.ndarray:
    """Encodes the frames of each row separately, with the processor of the model."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    is_video = folder.name in ("videomae", "xclip")
    num_frames = NUM_FRAMES if is_video else 1
    rows = []
    for row in range(num_rows):
        places = [row * num_frames + frame + 0.5 for frame in range(num_frames)]
        frames = shown_at(video, [place / num_frames / fps for place in places])
        pixels = processor(frames, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            if folder.name == "xclip":
                output = model.get_video_features(pixel_values=pixels)
            elif folder.name in ("clip", "siglip"):
                output = model.get_image_features(pixel_values=pixels)
            elif folder.name == "dinov2":
                output = model(pixels).pooler_output
            else:
                output = model(pixels).last_hidden_state.mean(dim=1)
        vector = pooled(output)[0].numpy()
        rows.append(vector / np.linalg.norm(vector))
    return np.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fps"),
    [(kind, 1) for kind in MAKERS] + [("clip", 2), ("videomae", 0.5)],
)
def test_features_equal_the_output_of_the_model(
    run_extract, videos, tmp_path, folders, kind, fps
):
    out = tmp_path / "out"
    encoder = f"hf:{folders[kind]}"
    assert run_extract(videos, out, "--encoder", encoder, "--fps", str(fps)) == 0
    for name, seconds in SECONDS.items():
        features = np.load(out / f"{name}.npy")
        num_rows = int(np.ceil(seconds * fps))
        assert features.shape == (num_rows, WIDTHS[kind])
        # The last row of a video model may have copies of the last frame.
        num_whole = int(seconds * fps)
        if num_whole:
            wanted = naive_features(
                folders[kind], videos / f"{name}.mp4", num_whole, fps
            )
            # The routines that convert colours are different, and may differ by 1/255.
            np.testing.assert_allclose(features[:num_whole], wanted, atol=0.02)
    info = read_feature_info(out)
    assert (info.encoder, info.width, info.fps) == (encoder, WIDTHS[kind], fps)
    assert info.revision.startswith("sha256 ")
    assert info.normalised


def test_another_encoder_needs_another_folder(
    run_extract, videos, tmp_path, folders, capsys
):
    for kind, code in (("clip", 0), ("dinov2", 2)):
        options = ["--encoder", f"hf:{folders[kind]}", "--limit", "1"]
        assert run_extract(videos, tmp_path / "out", *options) == code
    assert "were made with other settings: type" in capsys.readouterr().err


def test_another_path_of_the_same_model_continues(
    run_extract, videos, tmp_path, folders, monkeypatch
):
    monkeypatch.chdir(folders["clip"].parent)
    for path in (folders["clip"], "./clip", "clip"):
        options = ["--encoder", f"hf:{path}", "--limit", "1"]
        assert run_extract(videos, tmp_path / "out", *options) == 0
        info = read_feature_info(tmp_path / "out")
        assert info.encoder == f"hf:{folders['clip']}"


OWN = """
import torch
from mmpt.media import Sampling


class MeanColour:
    def sampling(self):
        return Sampling(frame_rate=4, num_frames=2, size=None)

    def prepare(self, frames):
        return torch.from_numpy(frames).float().mean(dim=(0, 1, 2))

    def encode(self, inputs):
        return inputs @ torch.ones(3, 5)


class Half:
    def sampling(self):
        return Sampling()
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_encoders.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield
    sys.modules.pop("own_encoders", None)


@pytest.mark.usefixtures("own_module")
def test_a_user_defined_class(run_extract, videos, tmp_path, capsys):
    encoder = ["--encoder", "own_encoders.MeanColour", "--l2_normalize", "0"]
    assert run_extract(videos, tmp_path / "out", *encoder) == 0
    features = np.load(tmp_path / "out/c.npy")
    assert features.shape == (8, 5)
    assert (features == features[:, :1]).all()
    info = read_feature_info(tmp_path / "out")
    assert (info.width, info.fps, info.normalised) == (5, 2, False)
    assert run_extract(videos, tmp_path / "out", *encoder, "--fps", "2") == 2
    assert "whose method `sampling` decides" in capsys.readouterr().err


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("clip", DataError, "must be s3d, hf:<model or folder>"),
        ("jax:clip", DataError, "must be s3d, hf:<model or folder>"),
        ("own_encoders.Half", DataError, "but has no prepare, encode"),
        ("own_encoders.Missing", DataError, "has no class Missing"),
        ("hf:nowhere/at-all", CheckpointError, "hf download nowhere/at-all"),
        ("hf:./models/none", CheckpointError, "must be a folder with a model"),
        ("hf:models/clip/none", CheckpointError, "must be a folder with a model"),
    ],
)
def test_unusable_encoders_are_an_error(name, error, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(error, match=message):
        open_encoder(name)


def test_s3d_has_one_row_a_second(run_extract, videos, tmp_path, capsys):
    assert run_extract(videos, tmp_path / "out", "--fps", "2") == 2
    assert "--fps must be 1 with --encoder s3d, but is 2." in capsys.readouterr().err


def test_an_incompatible_torchvision_is_reported(monkeypatch, tmp_path):
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "timm.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(DataError, match=r"torchvision::nms .*build \(CPU or CUDA\)"):
        open_encoder("timm:vit_tiny_patch16_224")


def test_a_missing_timm_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DataError, match=r"needs the package timm.*pip install timm"):
        open_encoder("timm:vit_tiny_patch16_224")


def test_a_timm_model_is_used_with_its_own_transform(monkeypatch):
    """timm is not installed for the tests, so only the calls are tested."""
    timm = ModuleType("timm")
    timm.__version__ = "1"
    timm.data = ModuleType("timm.data")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.PReLU()).double()
    timm.create_model = lambda name, pretrained, num_classes: network
    timm.data.resolve_model_data_config = lambda model: {"size": 3}
    timm.data.create_transform = lambda size, is_training: (
        lambda image: torch.tensor(np.asarray(image)[:size, :size] / 255)
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    encoder = TimmEncoder("some", fps=2)
    assert encoder.sampling().fps == 2
    # The revision identifies the weights.
    before = encoder.revision
    assert before.startswith("sha256 ")
    torch.nn.init.zeros_(network[1].weight)
    assert TimmEncoder("some", fps=2).revision != before
    frames = np.full((1, 8, 8, 3), 51, np.uint8)
    features = encoder.encode(encoder.prepare(frames)[None])
    assert features.tolist() == [[0.2] * 27]
