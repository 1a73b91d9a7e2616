"""Folders of tiny vision and video models with random weights, as transformers saves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

LAYERS = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION = {**LAYERS, "image_size": 32, "patch_size": 16}
TEXT = {**LAYERS, "vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
CROP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
NUM_FRAMES = 4


def _clip() -> tuple[Any, Any]:
    config = transformers.CLIPConfig(
        text_config=TEXT, vision_config=VISION, projection_dim=24
    )
    return transformers.CLIPModel(config), transformers.CLIPImageProcessor(**CROP)


def _siglip() -> tuple[Any, Any]:
    config = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
    size = {"height": 32, "width": 32}
    processor = transformers.SiglipImageProcessor(size=size)
    return transformers.SiglipModel(config), processor


def _dinov2() -> tuple[Any, Any]:
    model = transformers.Dinov2Model(transformers.Dinov2Config(**VISION))
    return model, transformers.BitImageProcessor(**CROP)


def _videomae() -> tuple[Any, Any]:
    config = transformers.VideoMAEConfig(**VISION, num_frames=NUM_FRAMES)
    model = transformers.VideoMAEModel(config)
    return model, transformers.VideoMAEImageProcessor(**CROP)


def _xclip() -> tuple[Any, Any]:
    vision = {
        **VISION,
        "num_frames": NUM_FRAMES,
        "mit_hidden_size": 16,
        "mit_intermediate_size": 32,
        "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 2,
    }
    config = transformers.XCLIPConfig(
        text_config=TEXT, vision_config=vision, projection_dim=16
    )
    model = transformers.XCLIPModel(config)
    return model, transformers.VideoMAEImageProcessor(**CROP)


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "clip": _clip,
    "siglip": _siglip,
    "dinov2": _dinov2,
    "videomae": _videomae,
    "xclip": _xclip,
}


def save_encoder(kind: str, folder: Path) -> Path:
    """Saves a model of a kind with its image processor, and returns the folder."""
    torch.manual_seed(0)
    model, processor = MAKERS[kind]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
