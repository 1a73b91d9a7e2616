"""`MMPTModel`: vectors against direct calls of the towers, alignment, saving, loading, errors."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

from mmpt.config import ModelConfig
from mmpt.errors import CheckpointError, DataError, UserError
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.origin import Origin
from mmpt.media.s3d import S3D
from mmpt.models import MMFusionSeparate
from mmpt.shards.feature_info import FeatureInfo, write_feature_info
from tests.support.paths import ROOT
from tests.support.tiny_bert import tiny_bert_config
from tests.support.tiny_run import F, make_run

TEXTS = ["cut the tomato", "mix the flour with the pan and heat it", "", "stir " * 60]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("inference") / "run")


@pytest.fixture(scope="module")
def model(run) -> MMPTModel:
    return MMPTModel.from_pretrained(run)


@pytest.fixture(scope="module")
def small_s3d() -> S3D:
    torch.manual_seed(0)
    return S3D().eval()


def trained_with(model: MMPTModel, origin: Origin) -> MMPTModel:
    """Returns a copy of a model with another origin."""
    return MMPTModel(
        model.fusion, model.dataset_config, model.model_config, origin=origin
    )


def features(seconds: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((seconds, 512))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16)


def embed_by_hand(
    model: MMPTModel, rows: np.ndarray, text: str = "cut"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the pooled video and text of a window and a text, from the aligner and the towers."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    caps, cmasks = model.aligner.build_text_seq(ids)
    vfeats, vmasks = model.aligner.build_video_seq(rows)
    with torch.no_grad():
        out = model.fusion(
            caps=caps[None],
            cmasks=cmasks[None],
            vfeats=vfeats[None].float(),
            vmasks=vmasks[None],
        )
    return out["pooled_video"][0], out["pooled_text"][0]


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_encode_text_returns_the_vectors_of_the_text_tower(model, batch_size):
    vectors = model.encode_text(TEXTS, batch_size=batch_size)
    assert vectors.dtype == torch.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        _, wanted = embed_by_hand(model, features(3), text)
        torch.testing.assert_close(vector, wanted, rtol=0, atol=1e-5)  # measured 2e-6
    one_text = model.encode_text(TEXTS[0])
    assert torch.equal(one_text, model.encode_text(TEXTS[:1]))


def test_a_long_text_is_cut_with_one_warning(model, monkeypatch, caplog):
    """transformers' own warning about indexing errors would be wrong."""
    monkeypatch.setattr(model.tokenizer, "model_max_length", 512)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    num_kept = model.aligner.max_text_len - 3
    long, cut = model.encode_text(["cut " * 3000, "cut " * num_kept])
    torch.testing.assert_close(long, cut)
    (message,) = caplog.messages
    assert message.startswith(f"1 of 2 texts were cut to their first {num_kept} word")


def test_texts_without_a_known_word_are_reported(model, caplog):
    model.encode_text(["cut", "", "野菜を切る"])
    (message,) = caplog.messages
    assert message.startswith("1 of 3 texts have no word that the vocabulary of the")
    assert message.endswith("the first one is '野菜を切る'")


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_long_video_is_the_mean_of_its_windows_weighted_by_length(model, batch_size):
    videos = [features(5), features(F, 1), features(2 * F + 3, 2)]
    vectors = model.encode_video(videos, batch_size=batch_size)
    assert vectors.shape == (3, 64)
    for rows, vector in zip(videos, vectors, strict=True):
        total = torch.zeros(64)
        for start in range(0, len(rows), F):
            window = rows[start : start + F]
            pooled, _ = embed_by_hand(model, window)
            total += len(window) * pooled
        # Measured 2e-6.
        torch.testing.assert_close(vector, total / len(rows), rtol=0, atol=1e-5)


def test_one_video_can_be_given_in_many_forms(model, tmp_path):
    rows = features(7)
    expected = model.encode_video([rows])
    path = tmp_path / "x.npy"
    np.save(path, rows)
    read_only = np.load(path, mmap_mode="r")
    for form in (
        rows,
        torch.from_numpy(rows),
        rows[None],
        read_only,
        str(path),
        [path],
    ):
        assert torch.equal(model.encode_video(form), expected)
    two_videos = np.stack([rows, rows])
    assert model.encode_video(two_videos).shape == (2, 64)


def test_similarity_is_the_dot_product(model):
    videos = [features(5), features(9, 1)]
    video_vectors = model.encode_video(videos)
    text_vectors = model.encode_text(TEXTS)
    expected = video_vectors @ text_vectors.T
    assert torch.equal(model.similarity(videos, TEXTS), expected)
    assert torch.equal(model.similarity(video_vectors, text_vectors), expected)
    with pytest.raises(DataError, match="in a list"):
        model.similarity(features(5), TEXTS)


def test_align_gives_the_plan_of_states_averaged_over_half_overlapping_windows(model):
    rows = features(27)
    result = model.align(rows, TEXTS)
    assert result.plan.shape == (4, 27)
    np.testing.assert_allclose(result.plan.sum(axis=0), 4 / 27, rtol=1e-4)
    (text,) = model.encode_text(TEXTS[1])
    caps = torch.tensor([[101, 102]])
    cmasks = torch.ones(1, 2, dtype=torch.bool)
    cosines = [[] for _ in rows]  # for each second
    for start in (0, 8, 16):
        window = torch.from_numpy(rows[start : start + F])
        mask = torch.ones(1, len(window), dtype=torch.bool)
        with torch.no_grad():
            (states,) = model.fusion.forward_video(
                window[None], mask, caps, cmasks, True
            )
        for second, state in enumerate(states[1:-1], start):
            cosine = torch.cosine_similarity(text, state, dim=0)
            cosines[second].append(cosine.item())
    wanted = [np.mean(values) for values in cosines]
    # Measured 3e-7.
    np.testing.assert_allclose(result.similarity[1], wanted, rtol=0, atol=1e-5)
    for (start, end), row in zip(result.spans, result.plan, strict=True):
        assert start <= row.argmax() < end


def test_features_of_frames_are_computed_in_float32_and_normalised(run, small_s3d):
    allowed = []
    small_s3d.register_forward_pre_hook(
        lambda *_: allowed.append(torch.backends.cudnn.allow_tf32)
    )
    model = MMPTModel.from_pretrained(run, s3d=small_s3d)
    frames = np.random.default_rng(0).integers(
        0, 256, size=(3, 4, 32, 32, 3), dtype=np.uint8
    )
    scaled = torch.from_numpy(frames).float() / 255
    with torch.no_grad():
        rows = small_s3d(scaled.movedim(-1, 1))["video_embedding"]
    unit = rows / rows.norm(dim=1, keepdim=True)
    allowed.clear()
    with torch.backends.cudnn.flags(allow_tf32=True):
        torch.testing.assert_close(model.video_features(frames), unit)
    assert allowed == [False]
    vectors = model.encode_video(frames)
    torch.testing.assert_close(vectors, model.encode_video(unit), rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors, model.encode_video(scaled))
    released = MMPTModel.from_pretrained(run, s3d=small_s3d, normalise=False)
    torch.testing.assert_close(released.video_features(frames), rows)


def test_each_tower_works_without_the_other_and_without_s3d(run, monkeypatch, tmp_path):
    model = MMPTModel.from_pretrained(run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(model.fusion, "video_encoder")
    assert model.encode_text("cut").shape == (1, 64)
    model = MMPTModel.from_pretrained(run)
    monkeypatch.delattr(model.fusion, "text_encoder")
    assert model.encode_video(features(4)).shape == (1, 64)
    frames = np.zeros((1, 4, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(CheckpointError, match=r"mmpt download s3d"):
        model.encode_video(frames)


def test_every_source_gives_the_same_model(run, model, tmp_path, monkeypatch):
    expected = model.encode_text(TEXTS)
    model.save_pretrained(tmp_path / "saved")
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "saved", moved)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    yaml_file = run / "config.yaml"
    checkpoint = run / "checkpoint_best.pt"
    for source in (
        yaml_file,
        str(run),
        checkpoint,
        str(moved),
        moved / "model.safetensors",
    ):
        loaded = MMPTModel.from_pretrained(source)
        assert torch.equal(loaded.encode_text(TEXTS), expected), source
    by_path = MMPTModel.from_pretrained(yaml_file, checkpoint=str(checkpoint))
    assert torch.equal(by_path.encode_text(TEXTS), expected)


def test_a_loaded_model_is_saved_as_the_same_bytes(model, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    model.save_pretrained(first)
    loaded = MMPTModel.from_pretrained(first)
    theirs = model.fusion.state_dict()
    ours = loaded.fusion.state_dict()
    assert list(theirs) == list(ours)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    loaded.save_pretrained(second)
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_saved_folder_keeps_its_dtype_unless_another_is_given(run, model, tmp_path):
    folder = tmp_path / "half"
    rows = features(4)
    half = MMPTModel.from_pretrained(run, dtype=torch.bfloat16)
    half.save_pretrained(folder)
    again = MMPTModel.from_pretrained(folder)
    assert again.dtype == torch.bfloat16
    assert torch.equal(again.encode_video(rows), half.encode_video(rows))
    single = MMPTModel.from_pretrained(folder, dtype=torch.float32)
    assert single.dtype == torch.float32

    half_vectors = half.encode_text(TEXTS)
    assert half_vectors.dtype == torch.float32
    cosine = torch.cosine_similarity(half_vectors, model.encode_text(TEXTS))
    assert cosine.min() > 0.999  # measured 0.99996


class SharpModel(MMFusionSeparate):
    """A user-defined model with a key."""

    class Config(ModelConfig):
        sharpness: int = 1
        """Any number."""

    @classmethod
    def from_config(cls, dataset, model, *, pretrained):
        fusion = super().from_config(dataset, model, pretrained=pretrained)
        fusion.sharpness = model.sharpness
        return fusion


def test_the_keys_of_a_users_model_are_saved_with_it(run, tmp_path, monkeypatch):
    module = ModuleType("own_model")
    module.SharpModel = SharpModel
    monkeypatch.setitem(sys.modules, "own_model", module)
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["model"] |= {"model_cls": "own_model.SharpModel", "sharpness": 3}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    model = MMPTModel.from_pretrained(
        tmp_path / "run.yaml", checkpoint=str(run / "checkpoint_best.pt")
    )
    model.save_pretrained(tmp_path / "saved")
    assert MMPTModel.from_pretrained(tmp_path / "saved").fusion.sharpness == 3


def test_damaged_folders_are_refused(model, tmp_path):
    def saved(name: str) -> Path:
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    other = saved("other")
    half = MMPTModel.from_pretrained(other, dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    shutil.copy(tmp_path / "half" / "model.safetensors", other / "model.safetensors")
    cut = saved("cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    absent = saved("absent") / "model.safetensors"
    absent.unlink()
    old = saved("old") / "config.json"
    config = json.loads(old.read_text())
    config["mmpt"]["format"] = 99
    old.write_text(json.dumps(config))
    reasons = {
        "other": "content differs",
        "cut": "damaged",
        "absent": "missing",
        "old": "not 1",
    }
    for name, reason in reasons.items():
        with pytest.raises(CheckpointError, match=reason):
            MMPTModel.from_pretrained(tmp_path / name)


def test_invalid_sources_are_refused(run, tmp_path):
    shutil.copy(run / "checkpoint_best.pt", tmp_path / "lonely.pt")
    (tmp_path / "empty").mkdir()

    cases = {
        str(tmp_path / "lonely.pt"): r"no config\.yaml next to it",
        str(tmp_path / "absent.yaml"): "there is no such file",
        str(tmp_path / "empty"): "holds neither",
    }
    for source, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            MMPTModel.from_pretrained(source)
    with pytest.raises(
        CheckpointError, match=r"checkpoint9\.pt must be in `eval\.save_path`"
    ):
        MMPTModel.from_pretrained(run / "config.yaml", checkpoint="checkpoint9.pt")


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "at least one"),
        (np.zeros((0, 512), np.float32), r"one second, but is float32 \[0, 512\]"),
        (np.zeros((3, 500), np.float32), "512-d"),
        (np.zeros((3, 512), np.int64), r"floats .* but is int64"),
        (np.array([["a"]]), "floats"),
        (np.full((3, 512), np.nan, np.float32), "finite"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\[2, 4, 4, 3\]"),
        (["absent.npy"], r"absent\.npy: no such file"),
        ([3], "int"),
    ],
)
def test_invalid_videos_are_refused(model, videos, message):
    with pytest.raises(DataError, match=message):
        model.encode_video(videos)


def test_frames_in_another_range_or_number_are_refused(run, small_s3d):
    model = MMPTModel.from_pretrained(run, s3d=small_s3d)
    bright = np.full((1, 4, 32, 32, 3), 200, np.float32)
    with pytest.raises(DataError, match="divide by 255"):
        model.encode_video(bright)
    caps, cmasks = model.aligner._build_text_seq([5])
    too_long = torch.zeros(1, F + 1, 4, 32, 32, 3)
    with pytest.raises(DataError, match="encode_video"):
        model(too_long, caps[None], cmasks[None])


@pytest.mark.parametrize("texts", [[], ["a", 3]])
def test_invalid_texts_are_refused(model, texts):
    with pytest.raises(UserError, match="strings"):
        model.encode_text(texts)
    with pytest.raises(UserError, match="batch_size"):
        model.encode_text(["a"], batch_size=0)


@pytest.mark.spawn
def test_inference_imports_neither_fairseq_nor_faiss(run):
    code = (
        "import sys; from mmpt.models import MMPTModel; import numpy as np;"
        f"m = MMPTModel.from_pretrained({str(run)!r});"
        "m.align(np.ones((4, 512), np.float32), ['cut']);"
        "print(sorted({'fairseq', 'faiss', 'av'} & set(sys.modules)))"
    )
    found = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert found.strip() == "[]"


def test_features_of_another_width_and_rate(model):
    """The model is from the run, but takes 2 rows of 20 numbers per second."""
    config = model.dataset_config.replace(feature_fps=2)
    bert = tiny_bert_config()
    bert.input_dim = 20
    torch.manual_seed(0)
    fusion = MMFusionSeparate(
        bert, num_hidden_video_layers=2, max_video_len=config.num_video_slots
    )
    other = MMPTModel(fusion.eval(), config, model.model_config)
    rows = np.random.default_rng(0).standard_normal((27, 20)).astype(np.float16)
    assert other.encode_video(rows[: 2 * F]).shape == (1, 64)
    result = other.align(rows, TEXTS)
    assert result.plan.shape == (4, 14)
    assert max(end for _, end in result.spans) <= 14
    with pytest.raises(DataError, match="features must be 20-d"):
        other.encode_video(features(5))
    with pytest.raises(DataError, match="takes 20-d features at 2 rows per second"):
        other.encode_video(np.zeros((1, 30, 8, 8, 3), np.uint8))


def test_rows_that_are_not_normalised_give_one_warning(model, tmp_path, caplog):
    model = trained_with(model, Origin(encoder="hf:a/clip", normalised=True))
    rows = features(3).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    unit[1] = 0  # a second without features
    model.encode_video(unit)
    assert caplog.text == ""
    for video in ("a", "b"):
        np.save(tmp_path / f"{video}.npy", 100 * unit)
    model.encode_video([tmp_path / "a.npy", tmp_path / "b.npy"])
    assert caplog.text.count("the median norm of these rows is 100.") == 1


def test_features_of_another_encoder_give_one_warning(model, tmp_path, caplog):
    model = trained_with(model, Origin(encoder="hf:a/clip", normalised=True))
    for name, encoder in (("same", "hf:a/clip"), ("other", "timm:resnet")):
        (tmp_path / name).mkdir()
        normalised = name == "same"
        info = FeatureInfo(encoder=encoder, width=512, normalised=normalised)
        write_feature_info(tmp_path / name, info)
        for video in ("a", "b"):
            np.save(tmp_path / name / f"{video}.npy", features(3))
    model.encode_video([tmp_path / "same/a.npy"])
    assert caplog.text == ""
    model.encode_video([tmp_path / "other/a.npy", tmp_path / "other/b.npy"])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert f"{tmp_path}/other: the features are from timm:resnet, not" in message
    assert "trained with features from hf:a/clip, normalised." in message
    assert "FEATURES --encoder hf:a/clip` makes the right ones" in message
