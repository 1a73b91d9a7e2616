"""`MMPTModel`: vectors against direct calls of the towers, alignment, saving, loading, errors."""

import json
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
from mmpt.media.s3d import S3D
from mmpt.models import MMFusionSeparate
from tests.support.paths import ROOT
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


def features(seconds: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((seconds, 512))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def embed_by_hand(
    model: MMPTModel, rows: np.ndarray, text: str = "cut"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the pooled video and text of one window and one text, by aligner and towers."""
    caps, cmasks = model.aligner.build_text_seq(
        model.tokenizer(text, add_special_tokens=False)["input_ids"]
    )
    vfeats, vmasks = model.aligner.build_video_seq(rows)
    with torch.no_grad():
        out = model.fusion(
            caps=caps[None], cmasks=cmasks[None], vfeats=vfeats[None].float(), vmasks=vmasks[None]
        )
    return out["pooled_video"][0], out["pooled_text"][0]


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_encode_text_returns_the_vectors_of_the_text_tower(model, batch_size):
    vectors = model.encode_text(TEXTS, batch_size=batch_size)
    assert vectors.dtype == torch.float32
    wanted = torch.stack([embed_by_hand(model, features(3), text)[1] for text in TEXTS])
    torch.testing.assert_close(vectors, wanted, rtol=0, atol=1e-5)  # measured 2e-6
    assert torch.equal(model.encode_text(TEXTS[0])[0], model.encode_text(TEXTS[:1])[0])


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_long_video_is_the_mean_of_its_windows_weighted_by_length(model, batch_size):
    videos = [features(5), features(F, 1), features(2 * F + 3, 2)]
    vectors = model.encode_video(videos, batch_size=batch_size)
    assert vectors.shape == (3, 64)
    for rows, vector in zip(videos, vectors, strict=True):
        total = sum(
            len(rows[start : start + F]) * embed_by_hand(model, rows[start : start + F])[0]
            for start in range(0, len(rows), F)
        )
        torch.testing.assert_close(vector, total / len(rows), rtol=0, atol=1e-5)  # measured 2e-6


def test_one_video_can_be_given_in_many_forms(model, tmp_path):
    rows = features(7)
    expected = model.encode_video([rows])
    np.save(tmp_path / "x.npy", rows)
    read_only = np.load(tmp_path / "x.npy", mmap_mode="r")
    arrays = (rows, torch.from_numpy(rows), rows[None], read_only)
    for form in (*arrays, str(tmp_path / "x.npy"), [tmp_path / "x.npy"]):
        assert torch.equal(model.encode_video(form), expected)
    assert model.encode_video(np.stack([rows, rows])).shape == (2, 64)


def test_similarity_is_the_dot_product(model):
    videos = [features(5), features(9, 1)]
    expected = model.encode_video(videos) @ model.encode_text(TEXTS).T
    assert torch.equal(model.similarity(videos, TEXTS), expected)
    vectors = model.encode_video(videos), model.encode_text(TEXTS)
    assert torch.equal(model.similarity(*vectors), expected)
    with pytest.raises(DataError, match="in a list"):
        model.similarity(features(5), TEXTS)


def test_align_gives_the_plan_of_states_averaged_over_half_overlapping_windows(model):
    rows = features(27)
    result = model.align(rows, TEXTS)
    assert result.plan.shape == (4, 27)
    np.testing.assert_allclose(result.plan.sum(axis=0), 4 / 27, rtol=1e-4)
    text = torch.nn.functional.normalize(model.encode_text(TEXTS[1]), dim=-1)[0]
    caps, cmasks = torch.tensor([[101, 102]]), torch.ones(1, 2, dtype=torch.bool)
    seen = [[] for _ in rows]
    for start in (0, 8, 16):
        part = torch.from_numpy(rows[start : start + F])[None]
        mask = torch.ones(1, part.shape[1], dtype=torch.bool)
        with torch.no_grad():
            states = model.fusion.forward_video(part, mask, caps, cmasks, True)[0]
        for place, state in enumerate(states[1:-1]):
            seen[start + place].append(float(text @ (state / state.norm())))
    wanted = [np.mean(cosines) for cosines in seen]
    np.testing.assert_allclose(result.similarity[1], wanted, rtol=0, atol=1e-5)  # measured 3e-7
    for (start, end), row in zip(result.spans, result.plan, strict=True):
        assert start <= row.argmax() < end


def test_frames_go_through_s3d_in_float32_and_have_length_one(run, small_s3d):
    allowed = []
    small_s3d.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    model = MMPTModel.from_pretrained(run, s3d=small_s3d)
    frames = np.random.default_rng(0).integers(0, 256, size=(3, 4, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        clips = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 255
        rows = small_s3d(clips)["video_embedding"]
    unit = rows / rows.norm(dim=1, keepdim=True)
    allowed.clear()
    with torch.backends.cudnn.flags(allow_tf32=True):
        torch.testing.assert_close(model.video_features(frames), unit)
    assert allowed == [False]
    vectors = model.encode_video(frames)
    torch.testing.assert_close(vectors, model.encode_video(unit), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.encode_video(clips.permute(0, 2, 3, 4, 1)), vectors)
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
    with pytest.raises(CheckpointError, match=r"mmpt download s3d"):
        model.encode_video(np.zeros((1, 4, 32, 32, 3), dtype=np.uint8))


def test_every_source_gives_the_same_model(run, model, tmp_path, monkeypatch):
    expected = model.encode_text(TEXTS)
    model.save_pretrained(tmp_path / "saved")
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names <= {path.name for path in (tmp_path / "saved").iterdir()}
    moved = shutil.move(tmp_path / "saved", tmp_path / "elsewhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkpoint = run / "checkpoint_best.pt"
    saved = (moved, Path(moved) / "model.safetensors")
    for source in (run / "config.yaml", str(run), checkpoint, *saved):
        assert torch.equal(MMPTModel.from_pretrained(source).encode_text(TEXTS), expected), source
    by_path = MMPTModel.from_pretrained(run / "config.yaml", checkpoint=str(checkpoint))
    assert torch.equal(by_path.encode_text(TEXTS), expected)
    loaded = MMPTModel.from_pretrained(moved)
    theirs, ours = model.fusion.state_dict(), loaded.fusion.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    loaded.save_pretrained(tmp_path / "again")
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (Path(moved) / name).read_bytes(), name


def test_a_saved_folder_keeps_its_dtype_unless_another_is_given(run, model, tmp_path):
    half = MMPTModel.from_pretrained(run, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    again = MMPTModel.from_pretrained(tmp_path / "half")
    assert again.dtype == torch.bfloat16
    assert torch.equal(again.encode_video(features(4)), half.encode_video(features(4)))
    assert MMPTModel.from_pretrained(tmp_path / "half", dtype=torch.float32).dtype == torch.float32
    cosine = torch.cosine_similarity(half.encode_text(TEXTS), model.encode_text(TEXTS))
    assert half.encode_text(TEXTS).dtype == torch.float32
    assert cosine.min() > 0.999  # measured 0.99996


class SharpModel(MMFusionSeparate):
    """A user's own model, with a key of its own."""

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
    MMPTModel.from_pretrained(other, dtype=torch.float16).save_pretrained(tmp_path / "half")
    shutil.copy(tmp_path / "half" / "model.safetensors", other / "model.safetensors")
    cut = saved("cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    (saved("absent") / "model.safetensors").unlink()
    config = json.loads((saved("old") / "config.json").read_text())
    config["mmpt"]["format"] = 99
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    reasons = {"other": "content differs", "cut": "damaged", "absent": "missing", "old": "not 1"}
    for name, reason in reasons.items():
        with pytest.raises(CheckpointError, match=reason):
            MMPTModel.from_pretrained(tmp_path / name)


def test_models_from_the_hub_load_but_may_not_contain_code(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "mine")
    download = "huggingface_hub.snapshot_download"
    monkeypatch.setattr(download, lambda repo_id, **_: str(tmp_path / "mine"))
    fetched = MMPTModel.from_pretrained("me/model")
    assert torch.equal(fetched.encode_text("cut"), model.encode_text("cut"))
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    config["mmpt"]["model"]["model_cls"] = "tests.support.tiny_run.make_run"
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="code of its own"):
        MMPTModel.from_pretrained("me/model")


def test_invalid_sources_are_refused(run, tmp_path, monkeypatch):
    shutil.copy(run / "checkpoint_best.pt", tmp_path / "lonely.pt")
    (tmp_path / "empty").mkdir()

    def offline(repo_id, **_):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    cases = {
        str(tmp_path / "lonely.pt"): r"no config\.yaml next to it",
        str(tmp_path / "absent.yaml"): "there is no such file",
        str(tmp_path / "empty"): "holds neither",
        "somebody/model": "no route to host.*hf download",
    }
    for source, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            MMPTModel.from_pretrained(source)
    with pytest.raises(CheckpointError, match=r"checkpoint9\.pt must be in `eval\.save_path`"):
        MMPTModel.from_pretrained(run / "config.yaml", checkpoint="checkpoint9.pt")


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "at least one"),
        (np.zeros((0, 512), np.float32), r"one second, but is float32 \[0, 512\]"),
        (np.zeros((3, 500), np.float32), "512 wide"),
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
    with pytest.raises(DataError, match="divide by 255"):
        model.encode_video(np.full((1, 4, 32, 32, 3), 200, np.float32))
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
