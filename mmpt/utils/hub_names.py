"""The names of models on the Hugging Face Hub."""


def is_hub_name(name: str) -> bool:
    """Returns whether a model on the Hugging Face Hub may have this name.

    Other names are paths. The name of a model may also be the path of a folder, such as
    `models/clip`, so callers look for a folder first.
    """
    # Deferred: importing it takes a second.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
