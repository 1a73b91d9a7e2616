"""The models of `--encoder hf:<name>`: checks that load no weights, and their processors."""

from pathlib import Path
from typing import Any

import torch

from mmpt.errors import CheckpointError
from mmpt.media.custom_encoder import describe_briefly
from mmpt.utils.help_pages import TORCH_PAGE
from mmpt.utils.hub_names import is_hub_name

WEIGHT_SUFFIXES = (".safetensors", ".bin")
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
"""Files of which a model with an image or video processor has at least one."""
OTHER_INPUTS = ("input_ids", "input_features", "input_values")
"""Names of the inputs of models of texts and sounds."""


def check_source(name: str) -> None:
    """Raises CheckpointError if `name` is an incomplete folder, or the path of a missing one.

    The form of a name shows whether it can be on the hub. A name of this form is the path of a
    folder if the part before the slash is a folder, unless the model of this name was downloaded
    from the hub.
    """
    if not name:
        raise CheckpointError(
            "`--encoder hf:` must be followed by a model on the Hugging Face hub, or a folder, but "
            "is followed by nothing."
        )
    folder = Path(name)
    if folder.is_dir():
        _check_files(name, folder)
        return
    is_path = not is_hub_name(name)
    owner, slash, _ = name.partition("/")
    remedy = "Correct the path, or give the name of a model on the Hugging Face hub."
    if not is_path and slash and Path(owner).is_dir() and not _is_downloaded(name):
        is_path = True
        remedy = (
            f"{owner} is a folder here. Correct the path. If you mean the model {name} on the "
            f"Hugging Face hub, run `hf download {name}` first."
        )
    if is_path:
        raise CheckpointError(
            f"`--encoder hf:{name}` must be a folder with a model, but there is no such folder. "
            f"{remedy}"
        )


def _check_files(name: str, folder: Path) -> None:
    """Raises CheckpointError if a folder lacks a file that every model has."""
    files = [path.name for path in folder.iterdir()]
    missing = []
    if "config.json" not in files:
        missing.append("config.json")
    if not any(file.endswith(WEIGHT_SUFFIXES) for file in files):
        missing.append("weights (such as model.safetensors)")
    if not set(PROCESSOR_FILES) & set(files):
        missing.append("preprocessor_config.json")
    if missing:
        raise CheckpointError(
            f"`--encoder hf:{name}` must be a folder with a model and its processor, but has no "
            f"{' and no '.join(missing)}. Correct the path, or save or download the whole model."
        )


def _is_downloaded(name: str) -> bool:
    """Returns whether the cache of the Hugging Face hub has a model."""
    from huggingface_hub import try_to_load_from_cache  # deferred: slow

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def find_commit(name: str) -> str:
    """Returns the newest commit of a model on the hub, or the downloaded one without a network."""
    from huggingface_hub import hf_hub_download  # deferred: slow

    # The file is in a folder with the name of the commit.
    return Path(hf_hub_download(name, "config.json")).parent.name


def load_processor(name: str, options: dict[str, Any]) -> Any:
    """Returns the image processor of a model or, if it has none, its video processor.

    transformers has two versions of most image processors, which round in different ways: one needs
    Pillow only, the other torchvision. By default it takes the latter if torchvision is installed.
    The former is taken on all machines, so that their features are alike.
    """
    from transformers import AutoImageProcessor, AutoVideoProcessor  # deferred: slow

    try:
        return AutoImageProcessor.from_pretrained(name, backend="pil", **options)
    except (OSError, ValueError) as err:
        try:
            return AutoVideoProcessor.from_pretrained(name, **options)
        except (OSError, ValueError, ImportError) as video_err:
            if _has_video_processor(name, options["revision"]):
                raise video_err from None
            raise err from None  # most models are image models


def _has_video_processor(name: str, commit: str | None) -> bool:
    """Returns whether the files of a model name a video processor.

    Args:
        commit: commit of a model on the hub. None: the model is in a folder.
    """
    from transformers.utils import cached_file  # deferred: slow

    for file in PROCESSOR_FILES[1:]:
        try:
            path = cached_file(name, file, revision=commit)
        except OSError:  # there is no such file
            continue
        if "video_processor_type" in Path(path).read_text(encoding="utf-8"):
            return True
    return False


def load_error(name: str, error: Exception) -> CheckpointError:
    """Returns the error for a model that cannot be loaded, with the reason and what to do."""
    if Path(name).is_dir():
        what = "in a folder"
        remedy = "Save or download the model again."
    else:
        what = "on the Hugging Face hub"
        remedy = (
            f"On a machine with network run `hf download {name} --local-dir <folder>`, and give "
            "the folder."
        )
    if "torchvision" in str(error).lower():
        remedy = (
            "Install torchvision in the version and the build (CPU or CUDA) that belong to torch "
            f"{torch.__version__}: {TORCH_PAGE}"
        )
    return CheckpointError(
        f"`--encoder hf:{name}` must be a model with a processor, {what}, but cannot be loaded "
        f"({describe_briefly(error)}). {remedy}"
    )


def check_input(name: str, model: Any) -> None:
    """Raises CheckpointError if a model takes texts or sounds only."""
    if hasattr(model, "get_image_features") or hasattr(model, "get_video_features"):
        return
    if model.main_input_name in OTHER_INPUTS:
        raise CheckpointError(
            f"`--encoder hf:{name}` must be a vision or video model, but is a "
            f"{type(model).__name__}, whose input is `{model.main_input_name}`."
        )
