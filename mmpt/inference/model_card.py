"""The model card: the `README.md` of a saved folder, with metadata for the Hugging Face Hub.

The last line of a card is a comment with the hash of the text before it. The hash shows whether a
user has changed the card.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mmpt.batch import FEATURE_DIM
from mmpt.config import DatasetConfig
from mmpt.inference.origin import Origin, extract_command, published_encoder
from mmpt.utils.io import atomic_write
from mmpt.utils.log import get_logger

if TYPE_CHECKING:
    # The import takes seconds, and `mmpt push` checks its arguments without it.
    from mmpt.models.mmfusion import MMFusionSeparate

logger = get_logger(__name__)

CARD_NAME = "README.md"
TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
SIGNATURE = (
    "\n<!-- Written by MMPT, which keeps a card that you change. sha256: {} -->\n"
)
IS_NORMALISED = {True: "yes", False: "no", None: "not recorded"}
SIGNED = re.compile(SIGNATURE.format("([0-9a-f]{64})"))


def make_card(
    name: str,
    fusion: "MMFusionSeparate",
    dataset: DatasetConfig,
    origin: Origin,
    results: Sequence[EvalResult] = (),
) -> str:
    """Returns the text of a model card.

    A card that a user has written is returned unchanged.

    Args:
        name: name of the model: `user/name`, or the folder it is saved in.
        fusion: the two towers.
        dataset: the configuration of the conversion of text and video to tensors.
        origin: where the model is from.
        results: results of evaluations. If there are none, the card gets the results of the
            earlier card.
    """
    if origin.card is not None:
        if not is_unchanged(origin.card):
            if results:
                logger.warning("the results are not added to the card that you wrote")
            return origin.card
        results = results or _results_of(origin.card)
    recipe = _recipe(origin.training)
    tags = ["mmpt", "video-text-retrieval"]
    if recipe is not None:
        tags.append(recipe.lower())
    data = ModelCardData(
        library_name="mmpt",
        pipeline_tag="feature-extraction",
        tags=tags,
        model_name=name if results else None,
        eval_results=list(results) or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        recipe=recipe,
        model=_model_facts(fusion, dataset),
        features=_feature_facts(fusion, dataset, origin),
        data=_data_facts(origin.training),
        training=_as_yaml(origin.training),
        results=results,
    )
    return _sign(str(card))


def write_card(folder: Path, text: str, *, overwrite: bool) -> None:
    """Writes the model card of a folder.

    A card that a user has changed is kept, with a warning.

    Args:
        overwrite: replace a card that a user has changed.
    """
    path = folder / CARD_NAME
    old = read_card(path)
    if not overwrite and not may_replace(old, text):
        logger.warning(
            "%s is kept, because it was edited, or `save_pretrained` did not write it. Pass "
            "`overwrite_card=True` to replace it.",
            path,
        )
        return
    with atomic_write(path) as file:
        file.write(text)


def read_card(path: Path) -> str | None:
    """Returns the text of a model card, or None if there is no such file."""
    if not path.is_file():
        return None
    return path.read_text(encoding="utf-8", errors="replace")


def may_replace(old: str | None, new: str) -> bool:
    """Returns whether replacing a card, if there is one, loses no text of a user."""
    return old is None or old == new or is_unchanged(old)


def is_unchanged(card: str) -> bool:
    """Returns whether a card is as this module wrote it."""
    found = SIGNED.search(card)
    return found is not None and card == _sign(card[: found.start()])


def _sign(text: str) -> str:
    """Returns a text with its signature."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text + SIGNATURE.format(digest)


def _results_of(card: str) -> list[EvalResult]:
    """Returns the results in the metadata of a card that this module wrote."""
    return ModelCard(card).data.get("eval_results", [])


def _recipe(training: dict[str, Any] | None) -> str | None:
    """Returns the name of the method of a training run, or of its loss. None: unknown."""
    loss = (training or {}).get("loss", {})
    name = loss.get("loss_cls")
    if name is None:
        return None
    if name != "MMContraLoss":
        _module, _, name = name.rpartition(".")
        return str(name)
    contrast = loss.get("sequence_contrast") or {}
    return "Norton" if contrast.get("sequence_contrast_weight") else "VideoCLIP"


def _model_facts(fusion: "MMFusionSeparate", dataset: DatasetConfig) -> dict[str, Any]:
    """Returns what a card says about the two towers."""
    video = fusion.video_encoder.bert.config
    text = fusion.text_encoder.config
    return {
        "class": type(fusion).__name__,
        "hidden_size": text.hidden_size,
        "video_layers": video.num_hidden_layers,
        "text_layers": text.num_hidden_layers,
        "num_parameters": sum(weight.numel() for weight in fusion.parameters()),
        "video_slots": dataset.num_video_slots,
        "text_slots": dataset.max_text_len,
    }


def _feature_facts(
    fusion: "MMFusionSeparate", dataset: DatasetConfig, origin: Origin
) -> dict[str, Any]:
    """Returns what a card says about the features that the model takes."""
    width = fusion.video_encoder.input_dim
    fps = dataset.feature_fps
    encoder = published_encoder(origin.encoder, origin.encoder_revision)
    command = extract_command(encoder, fps=fps, normalised=origin.normalised)
    if encoder is None:
        encoder = "not recorded"
        if (width, fps) == (FEATURE_DIM, 1):
            encoder += " (width and rate are S3D's)"
    return {
        "encoder": encoder,
        "revision": origin.encoder_revision or "not recorded",
        "width": width,
        "fps": f"{fps:g}",
        "normalised": IS_NORMALISED[origin.normalised],
        "command": command,
        "is_folder": encoder.startswith("hf:") and "/" not in encoder,
        "is_class": "." in encoder.partition(":")[0],
    }


def _data_facts(training: dict[str, Any] | None) -> dict[str, str]:
    """Returns the names of the data that the model was trained on."""
    dataset = (training or {}).get("dataset", {})
    facts = {}
    for title, key in (
        ("videos", "train_path"),
        ("features", "vfeat_dir"),
        ("captions", "tfeat_dir"),
    ):
        if dataset.get(key):
            facts[title] = dataset[key]
    return facts


def _as_yaml(settings: dict[str, Any] | None) -> str | None:
    """Returns settings as YAML."""
    if settings is None:
        return None
    return yaml.safe_dump(settings, sort_keys=False).strip()
