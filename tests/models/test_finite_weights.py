"""All functions and commands that load weights refuse NaN and infinity."""

import contextlib
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from mmpt.cli import embed, predict
from mmpt.config import RunConfig
from mmpt.errors import CheckpointError
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.media.s3d import S3D, load_s3d
from mmpt.models.bert import read_bert_weights
from mmpt.models.checkpoint import Use, load_weights
from mmpt.tasks.checks import check_start
from mmpt.tasks.fairseqmmstep import FairseqMMModel
from mmpt.utils.checkpoint_file import load_checkpoint, require_finite
from tests.support.tiny_bert import smallest_bert_config
from tests.support.tiny_run import make_run

KEY = "text_encoder.embeddings.word_embeddings.weight"
BERT_KEY = "embeddings.word_embeddings.weight"


def spoil(weights: dict[str, torch.Tensor], key: str) -> None:
    """Writes a NaN and an infinity into one tensor."""
    with torch.no_grad():
        weights[key].view(-1)[1] = torch.nan
        weights[key].view(-1)[4] = -torch.inf


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose checkpoint holds two values that are not finite."""
    run = make_run(tmp_path_factory.mktemp("diverged") / "run")
    checkpoint = load_checkpoint(run / "checkpoint_best.pt")
    spoil(checkpoint["model"], f"mmmodel.{KEY}")
    checkpoint |= {"optimizer_history": [], "extra_state": {}}
    torch.save(checkpoint, run / "checkpoint_best.pt")
    shutil.copy(run / "checkpoint_best.pt", run / "checkpoint_last.pt")
    return run


def from_saved_folder(run: Path, tmp_path: Path) -> None:
    model = MMPTModel.from_pretrained(make_run(tmp_path / "whole"))
    spoil(model.fusion.state_dict(), KEY)
    model.save_pretrained(tmp_path / "saved")
    MMPTModel.from_pretrained(tmp_path / "saved")


def from_bert_folder(run: Path, tmp_path: Path) -> None:
    config = smallest_bert_config()
    bert = BertModel(config)
    spoil(bert.state_dict(), BERT_KEY)
    bert.save_pretrained(tmp_path)
    read_bert_weights(str(tmp_path), config, random_init=False)


def from_s3d_file(run: Path, tmp_path: Path) -> None:
    network = S3D()
    spoil(network.state_dict(), "fc.weight")
    torch.save(network.state_dict(), tmp_path / "s3d.pth")
    load_s3d(tmp_path / "s3d.pth")


def load_in_fairseq(run: Path, tmp_path: Path) -> None:
    fusion = MMPTModel.from_pretrained(make_run(tmp_path / "whole")).fusion
    path = run / "checkpoint_last.pt"
    model = FairseqMMModel(fusion, str(path), Use.RESUME)
    model.load_state_dict(load_checkpoint(path)["model"])


def start(**options: object) -> None:
    check_start(RunConfig(path="a.yaml", fairseq={"checkpoint": options}))


def command(main: Callable[[list[str]], int], *arguments: object) -> None:
    """Runs a command that must exit with code 2, and raises its message as an error."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert main([*map(str, arguments), "--device", "cpu"]) == 2
    raise CheckpointError(errors.getvalue().removeprefix("error: "))


def embed_texts(run: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("cut\n")
    files = ("--texts", tmp_path / "texts.txt", "--out", tmp_path / "out.npz")
    command(embed.main, "--model", run, *files)


ENTRIES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "yaml": (
        lambda run, _: MMPTModel.from_pretrained(run / "config.yaml"),
        "checkpoint_best.pt",
    ),
    "run": (lambda run, _: MMPTModel.from_pretrained(run), "checkpoint_best.pt"),
    "file": (
        lambda run, _: MMPTModel.from_pretrained(run / "checkpoint_best.pt"),
        "checkpoint_best.pt",
    ),
    "saved folder": (from_saved_folder, "model.safetensors"),
    "embed": (embed_texts, "checkpoint_best.pt"),
    "predict": (
        lambda run, _: command(predict.main, run / "config.yaml"),
        "checkpoint_best.pt",
    ),
    "training starts": (
        lambda run, tmp_path: start(
            restore_file=str(run / "checkpoint_best.pt"), save_dir=str(tmp_path)
        ),
        "checkpoint_best.pt",
    ),
    "training continues": (
        lambda run, _: start(save_dir=str(run)),
        "checkpoint_last.pt",
    ),
    "fairseq": (load_in_fairseq, "checkpoint_last.pt"),
    "BERT": (from_bert_folder, "model.safetensors"),
    "S3D": (from_s3d_file, "s3d.pth"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_loader_reports_the_file_the_tensor_and_the_number_of_values(
    entry, diverged, tmp_path
):
    load, name = ENTRIES[entry]
    key = {"BERT": BERT_KEY, "S3D": "fc.weight"}.get(entry, KEY)
    with pytest.raises(CheckpointError) as caught:
        load(diverged, tmp_path)
    pattern = (
        rf"^\S*{re.escape(name)}: weights must be finite, but 2 of [\d,]+ values are NaN or "
        rf"infinite, in 1 tensors \(first: `(mmmodel\.)?{re.escape(key)}`\)\. .*"
        r"(copy or download|Download it again|mmpt download s3d)"
    )
    assert re.search(pattern, str(caught.value)), str(caught.value)


def test_a_state_dict_in_memory_is_checked_too(diverged, tmp_path):
    fusion = MMPTModel.from_pretrained(make_run(tmp_path / "whole")).fusion
    state = fusion.state_dict()
    spoil(state, KEY)
    with pytest.raises(CheckpointError, match=r"^checkpoint: weights must be finite"):
        load_weights(fusion, state)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_all_types_of_tensors_are_checked(dtype):
    largest = torch.finfo(dtype).max
    good = torch.tensor([largest, -largest, 0.0], dtype=dtype)
    whole = {"a": good, "none": good[:0], "b": torch.tensor(3), "step": 7}
    require_finite(whole, "x.pt", "Again.")
    bad = torch.tensor([1.0, torch.nan], dtype=dtype)
    many = {f"bad{place}": bad for place in range(5)}
    with pytest.raises(CheckpointError) as caught:
        require_finite(whole | many, "x.pt", "Again.")
    assert str(caught.value) == (
        "x.pt: weights must be finite, but 5 of 14 values are NaN or infinite, in 5 tensors "
        "(first: `bad0`, `bad1`, `bad2`). Again."
    )


def test_training_refuses_an_optimizer_or_temperature_that_is_not_finite(tmp_path):
    entries = {
        "model": {"a": torch.ones(2)},
        "optimizer_history": [],
        "extra_state": {},
    }
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.tensor([1.0, torch.inf])
    optimizer.step()
    last, other = tmp_path / "checkpoint_last.pt", tmp_path / "other.pt"
    torch.save(entries | {"last_optimizer_state": optimizer.state_dict()}, other)
    message = r"optimizer's state must be finite, but 2 of 5 .*: `exp_avg`, .*`reset_optimizer"
    with pytest.raises(CheckpointError, match=message):
        start(restore_file=str(other), save_dir=str(tmp_path))
    start(restore_file=str(other), save_dir=str(tmp_path), reset_optimizer=True)
    shutil.copy(other, last)
    with pytest.raises(CheckpointError, match=message):
        start(restore_file=str(other), save_dir=str(tmp_path), reset_optimizer=True)
    torch.save(
        entries | {"criterion": {"loss.temperature": torch.tensor(torch.nan)}}, last
    )
    with pytest.raises(
        CheckpointError, match=r"the loss's weights .* `loss\.temperature`"
    ):
        start(save_dir=str(tmp_path))
