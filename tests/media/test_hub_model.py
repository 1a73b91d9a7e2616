"""Models of `--encoder hf:<name>` that cannot be used. Each gives one message at the start."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from mmpt.errors import CheckpointError
from mmpt.media.encoders import open_encoder
from mmpt.media.hub_model import check_source
from tests.support.tiny_bert import smallest_bert_config
from tests.support.tiny_encoders import save_encoder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with a model, `enc/clip` in the working directory."""
    monkeypatch.chdir(tmp_path)
    return save_encoder("clip", Path("enc/clip"))


def test_a_damaged_weight_file_is_an_error(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"SafetensorError: .*download the model"):
        open_encoder(f"hf:{folder}")


def test_a_text_model_is_an_error(folder):
    text = Path("enc/text")
    transformers.BertModel(smallest_bert_config()).save_pretrained(text)
    shutil.copy(folder / "preprocessor_config.json", text)
    with pytest.raises(
        CheckpointError, match=r"is a BertModel, whose input is `input_ids`"
    ):
        open_encoder(f"hf:{text}")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "but has no config.json"),
        ("model.safetensors", r"but has no weights \(such as model.safetensors\)"),
        ("preprocessor_config.json", "but has no preprocessor_config.json"),
    ],
)
def test_a_missing_file_in_a_folder_is_reported(folder, file, message):
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=message):
        open_encoder(f"hf:{folder}")


def test_a_damaged_processor_is_reported_as_the_reason(folder):
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "X"}')
    with pytest.raises(CheckpointError) as caught:
        open_encoder(f"hf:{folder}")
    assert "Unrecognized image processor" in str(caught.value)
    assert "VideoProcessor" not in str(caught.value)


def test_the_error_for_a_video_processor_names_torchvision(folder):
    (folder / "preprocessor_config.json").unlink()
    (folder / "video_preprocessor_config.json").write_text(
        '{"video_processor_type": "VideoMAEVideoProcessor"}'
    )
    with pytest.raises(CheckpointError) as caught:
        open_encoder(f"hf:{folder}")
    assert "requires the Torchvision library" in str(caught.value)
    assert "Install torchvision in the version and the build" in str(caught.value)
    assert "Save or download the model again" not in str(caught.value)


def test_features_do_not_depend_on_the_installed_packages(folder, monkeypatch):
    """transformers prefers a processor with torchvision, which rounds differently."""
    load = transformers.AutoImageProcessor.from_pretrained
    asked = []

    def recorded(name, **options):
        asked.append(options.get("backend"))
        return load(name, **options)

    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", recorded)
    encoder = open_encoder(f"hf:{folder}").encoder
    assert asked == ["pil"]
    assert encoder.processor.backend == "pil"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "enc/nothere",
            r"no such folder. enc is a folder here. .*`hf download enc/nothere`",
        ),
        ("enc/not here", "no such folder. Correct the path"),
        ("./nothere", "no such folder. Correct the path"),
        ("~/nothere", "no such folder. Correct the path"),
        ("/nothere", "no such folder. Correct the path"),
        ("enc/clip/nothere", "no such folder. Correct the path"),
        ("enc", "has no config.json and no weights"),
        ("", "is followed by nothing"),
    ],
)
def test_a_missing_folder_is_not_treated_as_a_name_on_the_hub(folder, name, message):
    with pytest.raises(CheckpointError, match=message):
        check_source(name)


def test_names_on_the_hub_are_not_refused(folder, monkeypatch):
    for name in ("openai/clip-vit-large-patch14", "gpt2"):
        check_source(name)
    # The name of a downloaded model may also be a path on this machine.
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda name, file: f"cache/{file}"
    )
    check_source("enc/nothere")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_computed_in_float32(folder, dtype):
    model = transformers.AutoModel.from_pretrained(folder)
    model.to(dtype).save_pretrained(folder)
    encoder = open_encoder(f"hf:{folder}").encoder
    assert {weights.dtype for weights in encoder.parameters()} == {torch.float32}
    frame = np.full((1, 32, 32, 3), 100, np.uint8)
    with torch.no_grad():
        features = encoder.encode(encoder.prepare(frame)[None])
    assert features.dtype == torch.float32
