"""The commands of a user, from videos to a trained model, with features of a small CLIP."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli import prepare
from mmpt.config import load_config
from mmpt.shards.feature_info import read_feature_info
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.forked import run_forked
from tests.support.jobs import launch
from tests.support.paths import ROOT
from tests.support.tiny_encoders import save_encoder
from tests.support.videos import Clip, regular_times, write_video

pytestmark = pytest.mark.e2e

VTT = (
    "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nchop the {0}\n\n"
    "00:00:02.000 --> 00:00:03.500\nput the {0} in the pan\n"
)
FIRST_LAYER = "mmmodel.video_encoder.videomlp.linear1.weight"


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four videos, their captions, shards and a YAML, at two rows a second."""
    folder = tmp_path_factory.mktemp("clip")
    encoder = save_encoder("clip", folder / "encoder")
    raw = folder / "raw"
    raw.mkdir()
    for number in range(4):
        size = Clip(width=64 + 8 * number, height=64)
        write_video(raw / f"{number}.mp4", regular_times(4), size)
        (raw / f"{number}.en.vtt").write_text(
            VTT.format(["onion", "carrot"][number % 2])
        )
    options = {
        "--videos": raw,
        "--captions": raw,
        "--out": folder / "data",
        "--yaml": folder / "train.yaml",
        "--encoder": f"hf:{encoder}",
        "--fps": 2,
        "--bert-name": corpus / "bert",
    }
    words = []
    for name, value in options.items():
        words += [name, str(value)]
    assert prepare.main(words) == 0
    return folder


def overrides(folder: Path, name: str, *more: str) -> list[str]:
    save_dir = folder / "runs" / name
    return [
        f"fairseq.checkpoint.save_dir={save_dir}",
        f"eval.save_path={save_dir}",
        "fairseq.common.cpu=true",
        "fairseq.common.fp16=false",
        "fairseq.dataset.num_workers=0",
        "fairseq.optimization.max_epoch=1",
        *more,
    ]


def run(folder: Path, name: str, *more: str, yaml: str = "train.yaml") -> str:
    """Trains for one epoch in one process, and returns the output on the screen."""
    words = ["--jobtype", "local_single", *overrides(folder, name, *more)]
    job = run_forked("mmpt.cli.main:main", ["train", folder / yaml, *words])
    assert job.returncode == 0, job.stderr[-4000:]
    return job.stdout + job.stderr


def test_the_yaml_and_features_json_describe_the_features(prepared: Path) -> None:
    config = load_config(prepared / "train.yaml")
    assert (config.dataset.feature_dim, config.dataset.feature_fps) == (24, 2)
    assert config.dataset.num_video_slots == 32
    assert not config.model.layernorm_only
    assert config.option("optimization", "lr") == [5e-5]
    for folder in ("feat", "shards"):
        info = read_feature_info(prepared / "data" / folder)
        assert info is not None
        assert (info.width, info.fps) == (24, 2)


def test_training_can_start_from_a_checkpoint_for_s3d(prepared: Path) -> None:
    """The checkpoint is from another run, and gets a first layer for features of width 512."""
    restore = "fairseq.checkpoint.restore_file"
    run(prepared, "first", f"{restore}=null")
    start = prepared / "runs/first/checkpoint_last.pt"
    content = load_checkpoint(start)
    weight = content["model"][FIRST_LAYER]
    assert weight.shape[1] == 24
    content["model"][FIRST_LAYER] = torch.zeros(len(weight), 512)
    torch.save(content, prepared / "s3d.pt")
    shown = run(prepared, "second", f"{restore}={prepared / 's3d.pt'}")
    assert "features of width 512, but `model.input_dim` is 24" in shown
    trained = load_checkpoint(prepared / "runs/second/checkpoint_last.pt")["model"]
    assert trained[FIRST_LAYER].shape == weight.shape
    assert all(tensor.isfinite().all() for tensor in trained.values())


def test_a_file_of_the_same_features_gives_the_same_shards(prepared: Path) -> None:
    """`mmpt prepare --features` and `--videos` make the same shards, on which training works."""
    files = sorted((prepared / "data/feat").glob("*.npy"))
    rows = {path.stem: np.load(path) for path in files}
    (prepared / "all.pkl").write_bytes(pickle.dumps(rows))
    bert = load_config(prepared / "train.yaml").dataset.bert_name
    words = (
        f"--features {prepared}/all.pkl --captions {prepared}/raw --out {prepared}/own "
        f"--yaml {prepared}/own.yaml --fps 2 --recipe videoclip --bert-name {bert}"
    )
    assert prepare.main(words.split()) == 0
    shards = [prepared / f"{name}/shards/train_0_data.npy" for name in ("data", "own")]
    assert shards[0].read_bytes() == shards[1].read_bytes()
    run(prepared, "own", yaml="own.yaml")
    trained = load_checkpoint(prepared / "runs/own/checkpoint_last.pt")["model"]
    assert trained[FIRST_LAYER].shape[1] == 24


def test_wrong_settings_end_with_one_message_and_exit_code_2(prepared: Path) -> None:
    yaml = prepared / "train.yaml"
    for override, message in (
        ("model.input_dim=512", "`model.input_dim` must be 24, but is 512"),
        ("dataset.feature_fps=1", "`dataset.feature_fps` must be 2, but is 1"),
    ):
        from_bert = "fairseq.checkpoint.restore_file=null"
        words = overrides(prepared, "wrong", from_bert, override)
        job = launch([yaml, "--jobtype", "local_single", *words])
        assert job.returncode == 2
        assert message in job.stderr
        assert "features.json" in job.stderr
        assert "Traceback" not in job.stderr


def test_the_clip_yaml_differs_from_norton_only_in_the_features() -> None:
    plain = load_config(f"{ROOT}/projects/retri/norton/how2_pretrain.yaml")
    clip = load_config(f"{ROOT}/projects/retri/norton/how2_pretrain_clip.yaml")
    assert clip.loss == plain.loss
    assert clip.retrieval == plain.retrieval
    assert clip.dataset.feature_dim == 768
    assert not clip.model.layernorm_only
