"""Frames are encoded as by `mmpt extract`, with the encoder that was used for training."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli import embed, extract, index
from mmpt.errors import DataError
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.moment_index import MomentIndex
from mmpt.inference.origin import Origin
from mmpt.media import Sampling
from mmpt.media.s3d import S3D
from mmpt.models import MMFusionSeparate
from mmpt.shards.feature_info import read_feature_info
from mmpt.utils.io import file_hash
from tests.support.extract_jobs import MeanColours
from tests.support.tiny_bert import tiny_bert_config
from tests.support.tiny_encoders import save_encoder
from tests.support.tiny_run import make_run
from tests.support.videos import Clip, regular_times, write_video

SECONDS = 2.4
OWN = "tests.support.extract_jobs.MeanColours"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> MMPTModel:
    return MMPTModel.from_pretrained(
        make_run(tmp_path_factory.mktemp("frames") / "run")
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video, `v.mp4`, and two encoders, `clip` and `videomae`."""
    folder = tmp_path_factory.mktemp("raw")
    size = Clip(width=96, height=64)
    (folder / "videos").mkdir()
    write_video(folder / "videos/v.mp4", regular_times(SECONDS), size)
    for kind in ("clip", "videomae"):
        save_encoder(kind, folder / kind)
    return folder


def extracted(raw: Path, out: Path, encoder: str, *options: str) -> np.ndarray:
    """Returns the features of the video that `mmpt extract` writes to `out`/v.npy."""
    words = ["--vdir", raw / "videos", "--fdir", out, "--encoder", encoder, *options]
    assert extract.main([*map(str, words), "--device", "cpu"]) == 0
    return np.load(out / "v.npy")


def origin_of(features: Path) -> Origin:
    """Returns the origin of a model that was trained on these features."""
    info = read_feature_info(features)
    assert info is not None
    return Origin(
        encoder=info.encoder,
        encoder_revision=info.revision,
        normalised=info.normalised,
    )


def model_for(
    base: MMPTModel, origin: Origin, width: int, fps: float, **options
) -> MMPTModel:
    """Returns a model with random weights that takes features of this width and rate."""
    dataset = base.dataset_config.replace(feature_fps=fps)
    bert = tiny_bert_config()
    bert.input_dim = width
    torch.manual_seed(0)
    fusion = MMFusionSeparate(
        bert, num_hidden_video_layers=2, max_video_len=dataset.num_video_slots
    )
    return MMPTModel(
        fusion.eval(),
        dataset,
        base.model_config.replace(input_dim=width),
        origin=origin,
        **options,
    )


@pytest.mark.parametrize(
    ("kind", "fps", "options"),
    [("clip", 2, []), ("clip", 1, ["--l2_normalize", "0"]), ("videomae", 0.5, [])],
)
def test_a_file_gives_the_features_of_mmpt_extract(
    base, raw, tmp_path, kind, fps, options
):
    encoder = f"hf:{raw / kind}"
    expected = extracted(raw, tmp_path, encoder, "--fps", str(fps), *options)
    model = model_for(base, origin_of(tmp_path), expected.shape[1], fps)
    video = raw / "videos/v.mp4"
    found = model.video_features(video)
    assert torch.equal(found, torch.from_numpy(expected).float())
    vectors = model.encode_video([str(video), tmp_path / "v.npy"])
    assert torch.equal(vectors[0], vectors[1])
    # The weights of the encoder are kept in float32 even if the model has another dtype.
    half = model.to(torch.bfloat16).video_features(video)
    assert torch.equal(half, torch.from_numpy(expected).bfloat16())


def test_frames_give_the_features_of_their_file(base, raw, tmp_path):
    """A row has as many frames as the encoder takes."""
    expected = torch.from_numpy(extracted(raw, tmp_path, OWN)).float()
    assert expected.shape == (5, 6)
    model = model_for(base, origin_of(tmp_path), 6, 2, encoder=OWN)
    from mmpt.media.video_reader import VideoFile

    sampling = MeanColours().sampling()
    file = VideoFile(raw / "videos/v.mp4", samplings=[sampling])
    frames = np.stack(list(file.clips()))
    assert torch.equal(model.video_features(frames), expected)
    assert torch.equal(model.embed_clips(frames / 255), expected)
    assert model.embed_clips(frames[:0]).shape == (0, 6)
    with pytest.raises(DataError, match=r"\[rows, 2, height, .*but a row has 30"):
        model.encode_video(np.zeros((2, 30, 8, 8, 3), np.uint8))


class Network(torch.nn.Linear):
    """An encoder with weights: a linear map of the mean colour, once a second."""

    def __init__(self):
        super().__init__(3, 512)

    def sampling(self) -> Sampling:
        return Sampling(frame_rate=1, num_frames=1, size=None)

    def prepare(self, frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames).float().mean(dim=(0, 1, 2))

    def encode(self, inputs: torch.Tensor) -> torch.Tensor:
        return self(inputs)


def test_a_given_encoder_replaces_the_one_of_the_training_run(base, caplog):
    """S3D is the default for features of this width and rate."""
    origin = Origin(encoder="hf:a/clip", normalised=False)
    network = Network()
    model = model_for(base, origin, 512, 1, encoder=network)
    model.to(torch.float64)
    frames = np.full((2, 1, 4, 4, 3), 100, np.uint8)
    expected = network(torch.full((2, 3), 100.0)).half()
    assert torch.equal(model.video_features(frames), expected.double())
    assert f"{__name__}.Network (unknown revision), but the model was" in caplog.text
    assert not any("Network" in name for name, _ in model.named_modules())
    assert len(list(model.parameters())) == len(list(model.fusion.parameters()))


def test_a_user_defined_class_is_not_imported_unless_it_is_given(
    base, tmp_path, monkeypatch
):
    (tmp_path / "danger.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    origin = Origin(encoder="danger.Encoder")
    with pytest.raises(DataError) as error:
        model_for(base, origin, 512, 1).encode_video("v.mp4")
    message = str(error.value)
    assert "`encoder='danger.Encoder'`, or `--encoder danger.Encoder`" in message
    assert "--fdir FEATURES --encoder danger.Encoder`" in message
    assert "danger" not in sys.modules


def test_a_given_user_defined_class_makes_the_same_features(base, raw, tmp_path):
    expected = extracted(raw, tmp_path, OWN)
    model = model_for(base, origin_of(tmp_path), 6, 2, encoder=OWN)
    found = model.video_features(raw / "videos/v.mp4")
    assert torch.equal(found, torch.from_numpy(expected).float())


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        # The features have the width and the rate of S3D.
        (
            Origin(encoder="hf:/models/clip"),
            "takes 512-d features of hf:/models/clip at 1 row per second, but the revision of "
            "hf:/models/clip is not recorded, so it is only loaded if you name it: "
            "`encoder='hf:/models/clip'`, or `--encoder hf:/models/clip`. Extract them with `mmpt "
            "extract --vdir VIDEOS --fdir FEATURES --encoder hf:/models/clip`, and pass them with "
            "`--features FEATURES`",
        ),
        (
            Origin(encoder="hf:C:\\models\\clip", encoder_revision="sha256 12"),
            "the folder C:\\models\\clip does not exist here. Give the path of your copy: "
            "`encoder='hf:FOLDER'`, or `--encoder hf:FOLDER`. Extract",
        ),
        (
            Origin(encoder="timm:resnet", encoder_revision="sha256 12"),
            "needs the package timm, which cannot be imported",
        ),
        (
            Origin(encoder="s3d_module.Encoder"),
            "s3d_module.Encoder is a class, whose code is only run if you name it",
        ),
        (
            Origin(encoder="my features"),
            "'my features' is not the name of an encoder that `mmpt extract` runs. Extract "
            "features with the encoder of the training run, and pass them with "
            "`--features FEATURES`",
        ),
    ],
)
def test_an_encoder_that_cannot_be_loaded_is_an_error(
    base, monkeypatch, origin, message
):
    monkeypatch.setitem(sys.modules, "timm", None)
    model = model_for(base, origin, 512, 1)
    assert model.encode_video(np.ones((2, 512), np.float32)).shape == (1, 64)
    with pytest.raises(DataError) as error:
        model.encode_video(np.zeros((2, 30, 8, 8, 3), dtype=np.uint8))
    assert message in str(error.value)


def test_other_weights_are_an_error_unless_the_encoder_is_given(
    base, raw, tmp_path, caplog
):
    encoder = f"hf:{raw / 'clip'}"
    origin = Origin(encoder=encoder, encoder_revision="sha256 12")
    with pytest.raises(DataError, match="must be of revision sha256 12, but are of"):
        model_for(base, origin, 24, 1).load_encoder()
    model_for(base, origin, 24, 1, encoder=encoder).load_encoder()
    assert f"{encoder} (sha256 12). Scores are meaningless" in caplog.text


def test_features_of_another_width_or_rate_are_an_error(base, raw):
    encoder = f"hf:{raw / 'clip'}"
    model = model_for(base, Origin(), 20, 1, encoder=encoder)
    with pytest.raises(DataError, match=r"20-d features at 1 row per second, but hf:"):
        model.load_encoder()
    with pytest.raises(DataError, match="but S3D produces 512-d features at 1 row per"):
        model_for(base, Origin(), 20, 1).load_encoder()


@pytest.fixture(scope="module")
def s3d_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of an S3D."""
    path = tmp_path_factory.mktemp("s3d") / "s3d.pth"
    torch.manual_seed(0)
    torch.save(S3D().state_dict(), path)
    return path


SECOND = np.random.default_rng(0).integers(0, 256, (1, 4, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("recorded", "given", "is_unit"),
    [
        (None, None, True),
        (True, None, True),
        (False, None, False),
        (None, False, False),
        (False, True, True),
    ],
)
def test_features_are_normalised_as_in_training(
    base, s3d_file, recorded, given, is_unit
):
    """This holds for S3D and for encoders of other models."""
    origin = Origin(encoder="s3d", normalised=recorded)
    model = model_for(base, origin, 512, 1, s3d=s3d_file, normalise=given)
    length = model.video_features(SECOND).norm().item()
    assert (abs(length - 1) < 1e-4) == is_unit
    model = model_for(base, origin, 512, 1, encoder=Network(), normalise=given)
    length = model.video_features(SECOND[:, :1]).norm().item()
    assert (abs(length - 1) < 1e-2) == is_unit


def test_other_weights_of_s3d_give_a_warning(base, s3d_file, caplog):
    right = f"sha256 {file_hash(s3d_file)}"
    for revision in (None, right, "sha256 12"):
        assert caplog.text == ""
        origin = Origin(encoder="s3d", encoder_revision=revision)
        model_for(base, origin, 512, 1, s3d=s3d_file).load_encoder()
    assert f"with s3d ({right}), but the model was trained" in caplog.text
    caplog.clear()
    model = model_for(base, origin, 512, 1, s3d=S3D())  # its revision is unknown
    model.load_encoder()
    assert caplog.text == ""


def test_s3d_for_features_of_another_encoder_gives_one_warning(base, s3d_file, caplog):
    """CLIP ViT-B/32 has the width and rate of S3D."""
    origin = Origin(encoder="hf:a/clip", encoder_revision="1" * 40)
    model = model_for(base, origin, 512, 1, encoder="s3d", s3d=s3d_file)
    for _ in range(2):
        model.video_features(SECOND)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "with s3d (sha256" in record.getMessage()
    assert "trained with features of hf:a/clip (111" in record.getMessage()
    with pytest.raises(DataError, match=r"`--encoder` must be s3d, hf:.* is 'S3D'"):
        model_for(base, origin, 512, 1, encoder="S3D", s3d=s3d_file).load_encoder()


def test_the_default_s3d_gives_a_warning_only_if_the_features_are_unnamed(
    base, s3d_file, caplog
):
    model_for(base, Origin(), 512, 1, s3d=s3d_file).video_features(SECOND)
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    model = model_for(base, Origin(is_unnamed=True), 512, 1, s3d=s3d_file)
    model.encode_video(np.ones((2, 512), np.float32))
    caplog.clear()
    for _ in range(2):
        model.video_features(SECOND)
    (record,) = caplog.records
    assert record.levelname == "WARNING"


def test_commands_take_the_encoder_of_a_saved_model(
    base, raw, tmp_path, monkeypatch, capsys
):
    """The saved model stores only the name of the folder of its encoder, not the path."""
    expected = extracted(raw, tmp_path / "feat", f"hf:{raw / 'clip'}", "--fps", "2")
    model = model_for(base, origin_of(tmp_path / "feat"), 24, 2)
    model.save_pretrained(tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    words = ["--model", "saved", "--videos", raw / "videos", "--out", "out.npz"]
    common = [*map(str, words), "--device", "cpu"]
    assert embed.main(common) == 2
    assert "the folder clip does not exist here" in capsys.readouterr().err
    assert embed.main([*common, "--encoder", f"hf:{raw / 'clip'}"]) == 0
    vectors = np.load("out.npz")["vectors"]
    np.testing.assert_array_equal(vectors, model.encode_video([expected]))
    words = ["index", "--model", "saved", "--videos", str(raw / "videos")]
    assert index.main([*words, "--encoder", f"hf:{raw / 'clip'}"]) == 0
    (moments,) = MomentIndex.load("index").search(["cut the tomato"])
    assert [moment.video for moment in moments] == ["v"]
    # The name is a valid path in the parent of the encoder's folder.
    monkeypatch.chdir(raw)
    loaded = MMPTModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(
        loaded.encode_video("videos/v.mp4")[0], torch.from_numpy(vectors[0])
    )
