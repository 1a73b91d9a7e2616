"""The metadata and text of the model card. A card that a user has changed is kept."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard

from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.model_card import is_unchanged, make_card
from mmpt.inference.origin import Origin
from tests.support.tiny_run import make_run

RESULT = EvalResult(
    task_type="retrieval",
    dataset_type="test_vtt_zs",
    dataset_name="MSR-VTT, zero-shot",
    metric_type="R1",
    metric_name="clip, text to video, R@1",
    metric_value=12.34,
)
TRAINING = {
    "dataset": {"train_path": "train.lst", "vfeat_dir": "feat"},
    "loss": {
        "loss_cls": "MMContraLoss",
        "sequence_contrast": {"sequence_contrast_weight": 0.1},
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MMPTModel:
    run = make_run(tmp_path_factory.mktemp("card") / "run")
    return MMPTModel.from_pretrained(run)


def card_of(model: MMPTModel, origin: Origin, *results: EvalResult) -> ModelCard:
    text = make_card("me/model", model.fusion, model.dataset_config, origin, results)
    return ModelCard(text)


def test_the_metadata_is_readable_by_the_hub(model: MMPTModel) -> None:
    card = card_of(model, Origin(training=TRAINING), RESULT)
    assert card.data.library_name == "mmpt"
    assert card.data.tags == ["mmpt", "video-text-retrieval", "norton"]
    assert card.data.model_name == "me/model"
    assert card.data.eval_results == [RESULT]


def test_the_text_describes_model_features_training_and_results(model) -> None:
    origin = Origin(training=TRAINING, encoder="s3d")
    text = card_of(model, origin, RESULT).text
    assert 'MMPTModel.from_pretrained("me/model")' in text
    assert "| width of vectors | 64 |\n| layers, video and text | 2 and 4 |" in text
    num_parameters = sum(weight.numel() for weight in model.fusion.parameters())
    assert f"| parameters | {num_parameters:,} |" in text
    assert "| encoder | s3d |\n| width | 512 |\n| rate | 1 per second" in text
    assert "- videos: `train.lst`\n- features: `feat`\n" in text
    (settings,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert yaml.safe_load(settings) == TRAINING
    row = "| MSR-VTT, zero-shot | clip, text to video, R@1 | 12.34 |"
    assert f"|---|---|---:|\n{row}\n\n## Citation" in text
    assert text.count("@inproceedings{") == 2


FOLDER = Origin(
    training=TRAINING,
    encoder="hf:/home/somebody/secret/clip",
    encoder_revision="sha256 0123",
    normalised=False,
)


def test_the_card_explains_how_to_make_the_features(model) -> None:
    hub = replace(FOLDER, encoder="hf:openai/clip-large", encoder_revision="ce19dc")
    text = card_of(model, hub).text
    assert "| encoder | hf:openai/clip-large |" in text
    facts = "| L2-normalised | no |\n| revision of the encoder | ce19dc |"
    assert facts in text
    command = (
        "mmpt extract --vdir VIDEOS --fdir FEATURES --encoder hf:openai/clip-large "
        "--l2_normalize 0"
    )
    block = (
        f"from a folder of videos:\n\n```bash\n{command}\n```\n\n`model.encode_video`"
    )
    assert f"{facts}\n\nThis command makes them {block}" in text
    computed = "`model.encode_video` computes the same features from video files"
    assert f"{computed}.\n\n## Training" in text
    own = card_of(model, replace(hub, encoder="my_module.MyEncoder")).text
    assert f"{computed}, if you name the encoder in `from_pretrained(" in own
    assert "--encoder" not in card_of(model, Origin(encoder="CLIP ViT-B/32")).text


def test_an_encoder_that_is_a_folder_is_saved_without_its_path(
    model, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(model, "origin", FOLDER)
    model.save_pretrained(tmp_path, name="me/model")
    for name in ("README.md", "config.json"):
        text = (tmp_path / name).read_text()
        assert "secret" not in text
        assert "hf:clip" in text
    card = (tmp_path / "README.md").read_text()
    assert "--encoder hf:clip --l2_normalize 0" in card
    assert "Give the path of your copy of the encoder" in card
    loaded = MMPTModel.from_pretrained(tmp_path).origin
    expected = replace(FOLDER, encoder="hf:clip", card=card)
    assert loaded == expected


def test_the_card_mentions_what_is_unknown(model: MMPTModel) -> None:
    card = card_of(model, Origin())
    assert card.data.eval_results is None
    assert "The settings of the training run are not known." in card.text
    assert "No results were given." in card.text
    assert "| encoder | not recorded (width and rate are S3D's) |" in card.text
    assert "| L2-normalised | not recorded |" in card.text
    assert "mmpt extract" not in card.text


@pytest.mark.parametrize(
    ("loss", "tag"),
    [
        ({"loss_cls": "MMContraLoss"}, "videoclip"),
        ({"loss_cls": "my_parts.MarginLoss"}, "marginloss"),
    ],
)
def test_the_recipe_is_one_of_the_tags(model: MMPTModel, loss: dict, tag: str) -> None:
    card = card_of(model, Origin(training={"loss": loss}))
    assert card.data.tags[-1] == tag


def test_an_unchanged_card_is_replaced(model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "README.md"
    first = path.read_text()
    assert is_unchanged(first)
    model.save_pretrained(tmp_path, results=[RESULT])
    assert "12.34" in path.read_text()


@pytest.mark.parametrize("text", ["My words.\n", b"\xff\xfe broken", ""])
def test_a_card_that_a_user_changed_is_kept(
    model, tmp_path: Path, caplog, text
) -> None:
    path = tmp_path / "README.md"
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    model.save_pretrained(tmp_path)
    assert path.read_bytes() == content
    assert "README.md is kept" in caplog.text
    model.save_pretrained(tmp_path, overwrite_card=True)
    assert is_unchanged(path.read_text())


def test_a_changed_card_is_saved_with_the_model_in_other_folders(
    model, tmp_path
) -> None:
    model.save_pretrained(tmp_path / "first")
    path = tmp_path / "first" / "README.md"
    changed = path.read_text().replace("## Use", "## My words\n\n## Use")
    path.write_text(changed)
    assert not is_unchanged(changed)
    loaded = MMPTModel.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second", results=[RESULT])
    assert (tmp_path / "second" / "README.md").read_text() == changed


def test_results_and_training_are_kept_when_a_saved_model_is_saved(
    model, tmp_path, monkeypatch
) -> None:
    known = replace(model.origin, training=TRAINING, encoder="s3d")
    monkeypatch.setattr(model, "origin", known)
    model.save_pretrained(tmp_path / "first", name="me/model", results=[RESULT])
    loaded = MMPTModel.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second", name="me/model")
    first, second = (tmp_path / name / "README.md" for name in ("first", "second"))
    assert second.read_text() == first.read_text()
    assert "12.34" in second.read_text()
