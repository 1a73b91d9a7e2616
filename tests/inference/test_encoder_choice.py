"""The choice of the encoder of frames, and the encoders that a downloaded model may name."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from mmpt.errors import DataError, UserError
from mmpt.inference.encoder_choice import (
    Choice,
    choose_encoder,
    find_difference,
    open_choice,
)
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.origin import Origin
from mmpt.media.encoders import open_encoder
from tests.support.hub_server import Hub, Repo
from tests.support.tiny_encoders import save_encoder
from tests.support.tiny_run import make_run

COMMIT = "ce19dc912ca5cd21c8a653c79e251e808ccabcd1"
CLIP = Origin(encoder="hf:a/clip", encoder_revision=COMMIT)
OWN = "danger.Encoder"


def origin(encoder: str | None, revision: str | None = None, **more) -> Origin:
    return Origin(encoder=encoder, encoder_revision=revision, **more)


@pytest.mark.parametrize("name", ["s3d", "S3D HowTo100M", "s3d_howto100m"])
def test_a_recorded_name_of_s3d_may_have_a_suffix(name):
    assert choose_encoder(origin(name), None) == Choice(encoder="s3d")
    # A name from the user must be exact.
    assert choose_encoder(origin(name), "S3D HowTo100M").encoder == "S3D HowTo100M"


@pytest.mark.parametrize(
    ("model", "level"),
    [
        (Origin(), logging.INFO),
        (Origin(is_unnamed=True), logging.WARNING),
        (Origin(is_downloaded=True), logging.WARNING),
    ],
)
def test_s3d_is_assumed_if_nothing_is_recorded(model, level):
    choice = choose_encoder(model, None)
    assert (choice.encoder, choice.level) == ("s3d", level)
    assert "because the model does not record the encoder" in choice.note


@pytest.mark.parametrize(
    ("name", "revision"),
    [
        ("hf:a/clip", COMMIT),
        ("hf:gpt2", COMMIT),
        ("timm:resnet18.a1_in1k", "sha256 12"),
    ],
)
def test_names_that_every_model_may_record(name, revision):
    for is_downloaded in (False, True):
        choice = choose_encoder(
            origin(name, revision, is_downloaded=is_downloaded), None
        )
        assert (choice.encoder, choice.revision) == (name, revision)
        assert choice.is_trusted != is_downloaded


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("hf:/models/clip", "sha256 12", "is a folder of its author. Give the path of"),
        ("timm:local-dir:vit", "sha256 12", "downloaded, and timm:local-dir:vit is"),
        ("timm:hf-hub:a/b", "sha256 12", "downloaded, and timm:hf-hub:a/b is only"),
    ],
)
def test_names_that_only_a_trusted_model_may_record(name, revision, message):
    assert choose_encoder(origin(name, revision), None).encoder == name
    model = origin(name, revision, is_downloaded=True)
    with pytest.raises(DataError, match=message):
        choose_encoder(model, None)
    assert choose_encoder(model, name) == Choice(encoder=name)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("hf:a/clip", None, "the revision of hf:a/clip is not recorded, so"),
        ("timm:resnet", None, "the revision of timm:resnet is not recorded, so"),
        ("hf:a/clip", "main", r"hf:a/clip \(main\) is neither a commit"),
        ("hf:a/clip", f"{COMMIT}/..", "is neither a commit"),
        ("hf:/models/clip", COMMIT, "is neither a commit"),
        ("hf:\\\\host\\share", COMMIT, "is neither a commit"),
        ("hf:../clip", COMMIT, "is neither a commit"),
        (OWN, "sha256 12", "is a class, whose code is only run"),
    ],
)
def test_names_that_only_the_user_may_give(name, revision, message):
    model = origin(name, revision)
    with pytest.raises(DataError, match=message) as error:
        choose_encoder(model, None)
    assert f"if you name it: `encoder={name!r}`, or `--encoder " in str(error.value)
    assert choose_encoder(model, name) == Choice(encoder=name)


FOLDER = "sha256 " + "0" * 64


@pytest.mark.parametrize(
    ("model", "name", "revision", "words"),
    [
        (Origin(), "hf:a/clip", COMMIT, None),
        (CLIP, "hf:a/clip", COMMIT, None),
        (CLIP, "hf:copy/of-clip", COMMIT, None),
        (CLIP, "s3d", None, ("s3d (unknown revision), but", f"hf:a/clip ({COMMIT})")),
        (CLIP, "hf:a/clip", "0" * 40, (f"hf:a/clip ({'0' * 40})", "if they differ.")),
        (CLIP, "hf:a/clip", FOLDER, ("The local folder a/clip shadows the Hub model",)),
        (
            replace(CLIP, encoder_revision=None),
            "hf:a/clip",
            COMMIT,
            ("features of hf:a/clip (unknown revision)",),
        ),
        (origin(OWN, "sha256 12"), OWN, None, None),
        (origin("s3d", FOLDER), "s3d", FOLDER, None),
        (origin("s3d", FOLDER), "s3d", "sha256 12", ("s3d (sha256 12)", FOLDER)),
        (origin("s3d", FOLDER), "s3d", None, None),
        (origin("S3D HowTo100M"), "s3d", FOLDER, None),
        (origin("S3D HowTo100M"), "hf:a/clip", COMMIT, ("of S3D HowTo100M",)),
    ],
)
def test_a_difference_from_the_encoder_of_the_training_run(
    model, name, revision, words
):
    text = find_difference(model, name, revision)
    assert (text is None) == (words is None)
    for each in words or ():
        assert each in text


# ---- with a stand-in for the Hugging Face Hub


@pytest.fixture(scope="module")
def encoder_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = save_encoder("clip", tmp_path_factory.mktemp("encoder") / "clip")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def choice_of(repo: Repo, *, is_trusted: bool) -> Choice:
    return Choice(encoder="hf:a/clip", revision=repo.head, is_trusted=is_trusted)


def fetched(hub: Hub) -> set[str]:
    return {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}


def same_weights(one: torch.nn.Module, files: dict[str, bytes], folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    state = transformers.AutoModel.from_pretrained(folder).state_dict()
    return all(
        torch.equal(state[key], value) for key, value in one.state_dict().items()
    )


@pytest.mark.parametrize("is_trusted", [True, False])
def test_the_commit_is_loaded_even_if_a_folder_has_the_same_name(
    hub: Hub, encoder_files, tmp_path, is_trusted
):
    """The folder is in the current folder, and the newest commit has no model."""
    shutil.copytree(save_encoder("videomae", tmp_path / "other"), "a/clip")
    extra = {"modeling.py": b"1 / 0", "pytorch_model.bin": b"x", "flax.msgpack": b"x"}
    repo = hub.add("a/clip", encoder_files | extra)
    choice = choice_of(repo, is_trusted=is_trusted)
    repo.commit({"config.json": b"{}"})
    name, revision, encoder = open_choice(choice, 2)
    assert (name, revision) == ("hf:a/clip", choice.revision)
    assert encoder.sampling().fps == 2
    assert same_weights(encoder.model, encoder_files, tmp_path / "expected")
    assert not fetched(hub) & set(extra)


def test_the_error_for_an_unknown_model_suggests_a_local_copy(hub: Hub):
    choice = Choice(encoder="hf:a/clip", revision=COMMIT)
    with pytest.raises(
        DataError, match=r"no such file.*Give the path of your copy: `enc"
    ):
        open_choice(choice, 1)


def test_the_newest_commit_is_recorded(hub: Hub, encoder_files):
    """`mmpt extract --encoder hf:a/clip` writes it to features.json."""
    repo = hub.add("a/clip", encoder_files)
    assert open_encoder("hf:a/clip").revision == repo.head


def test_weights_that_may_contain_code_are_only_loaded_if_trusted(
    hub: Hub, encoder_files, tmp_path
):
    files = dict(encoder_files)
    del files["model.safetensors"]
    state = transformers.AutoModel.from_pretrained(
        save_encoder("clip", tmp_path / "clip")
    ).state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    repo = hub.add("a/clip", files)
    with pytest.raises(UserError, match="has no weights"):
        open_choice(choice_of(repo, is_trusted=False), 1)
    assert "pytorch_model.bin" not in fetched(hub)
    encoder = open_choice(choice_of(repo, is_trusted=True), 1).encoder
    assert same_weights(encoder.model, encoder_files, tmp_path / "expected")
    # They are not loaded for an untrusted model even after the download.
    with pytest.raises(UserError, match=r"cannot be loaded|safetensors"):
        open_choice(choice_of(repo, is_trusted=False), 1)


def with_config(files: dict[str, bytes], **values) -> dict[str, bytes]:
    config = json.loads(files["config.json"]) | values
    return files | {"config.json": json.dumps(config).encode()}


def test_the_code_of_an_encoder_is_not_run(hub: Hub, encoder_files, tmp_path):
    code = f"open({str(tmp_path / 'was_run')!r}, 'w')".encode()
    auto_map = dict.fromkeys(("AutoConfig", "AutoModel"), "danger.Encoder")
    files = with_config(encoder_files, model_type="new", auto_map=auto_map)
    repo = hub.add("a/clip", files | {"danger.py": code})
    folder = tmp_path / "copy"
    folder.mkdir()
    for name, content in repo.files.items():
        (folder / name).write_bytes(content)
    for is_trusted in (False, True):
        with pytest.raises(UserError, match="must be a model with a processor"):
            open_choice(choice_of(repo, is_trusted=is_trusted), 1)
    for name in ("hf:copy", "hf:a/clip"):
        with pytest.raises(UserError, match="must be a model with a processor"):
            open_encoder(name)
    assert not (tmp_path / "was_run").exists()
    assert "danger.py" not in fetched(hub)


@pytest.mark.parametrize(
    "values",
    [
        {"transformers_weights": "/etc/x.safetensors"},
        {"vision_config": {"backbone": "hf-hub:a/b"}},
    ],
)
def test_a_config_that_names_other_files_is_refused(hub: Hub, encoder_files, values):
    repo = hub.add("a/clip", with_config(encoder_files, **values))
    (key, value), *_ = values.items()
    key = key if isinstance(value, str) else "backbone"
    with pytest.raises(DataError, match=f"of hf:a/clip has {key}, so .*if you name it"):
        open_choice(choice_of(repo, is_trusted=False), 1)


def test_a_downloaded_model_cannot_name_a_folder(hub: Hub, tmp_path, monkeypatch):
    """The folder exists, and has the weights of the recorded revision."""
    clip = save_encoder("clip", tmp_path / "clip")
    revision = open_encoder(f"hf:{clip}").revision
    model = MMPTModel.from_pretrained(make_run(tmp_path / "run"))
    model.save_pretrained(tmp_path / "saved")
    frames = np.zeros((1, 1, 8, 8, 3), np.uint8)
    for name, found in ((f"hf:{clip}", revision), (f"hf:{clip}", COMMIT)):
        path = tmp_path / "saved/config.json"
        config = json.loads(path.read_text())
        config["mmpt"] |= {"encoder": name, "encoder_revision": found}
        path.write_text(json.dumps(config))
        files = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        hub.repos.pop("me/model", None)
        hub.add("me/model", files)
        loaded = MMPTModel.from_pretrained("me/model")
        assert loaded.origin.is_downloaded
        assert loaded.origin.encoder == "hf:clip"  # without the folder
        with pytest.raises(DataError) as error:
            loaded.encode_video(frames)
        assert str(tmp_path) not in str(error.value)
    assert not MMPTModel.from_pretrained(tmp_path / "saved").origin.is_downloaded
