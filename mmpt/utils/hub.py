"""A model folder from the Hugging Face hub by its own client, which resumes and checks; given its name when whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mmpt.utils.download import Outcome
from mmpt.utils.download_ledger import Ledger, record_of
from mmpt.utils.log import get_logger
from mmpt.utils.part_file import DownloadError

logger = get_logger(__name__)


def fetch_from_hub(
    repo: str, files: Sequence[str], folder: Path, ledger: Ledger, *, endpoint: str | None = None, force: bool = False
) -> Outcome:
    """Bring `files` of the hub's `repo` to `folder`, or check that those there are the ones recorded.

    Args:
        endpoint: another hub's address.
    Raises:
        DownloadError: the hub cannot be reached, lacks a file, or `folder` is incomplete or has changed.
    """
    if folder.exists() and not force:
        return _check_folder(repo, files, folder, ledger)
    unfinished = folder.with_name(f".{folder.name}.part")
    for name in files:
        logger.info("%s: %s from the Hugging Face hub", folder, name)
        _fetch(repo, name, unfinished, endpoint)
    shutil.rmtree(unfinished / ".cache", ignore_errors=True)  # the client's notes for resuming
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(unfinished, folder)
    for name in files:
        ledger.add(folder / name, record_of(folder / name, f"{endpoint or 'https://huggingface.co'}/{repo}"))
    return Outcome.FETCHED


def _fetch(repo: str, name: str, folder: Path, endpoint: str | None) -> None:
    from huggingface_hub import hf_hub_download  # deferred: half a second, and only this command needs it

    try:
        hf_hub_download(repo, name, local_dir=folder, endpoint=endpoint)
    except (OSError, ValueError) as err:  # the client's own errors are both
        reason = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise DownloadError(
            f"{repo}: {name} cannot be had from the Hugging Face hub ({reason}). Run the same command again, where "
            "there is a connection, or name another hub with `--mirror`."
        ) from err


def _check_folder(repo: str, files: Sequence[str], folder: Path, ledger: Ledger) -> Outcome:
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise DownloadError(
            f"{folder}: must hold {', '.join(files)} of {repo}, but lacks {', '.join(missing)}. Remove the folder, or "
            "replace it with `--force`."
        )
    outcome = Outcome.INTACT
    for name in files:
        known, now = ledger.get(folder / name), record_of(folder / name, None)
        if known is None:
            ledger.add(folder / name, now)
            outcome = Outcome.FOUND
        elif known.sha256 != now.sha256:
            raise DownloadError(
                f"{folder / name}: has changed since it was recorded on {known.date}: its SHA-256 was {known.sha256} "
                f"and is {now.sha256}. Replace the folder with `--force`."
            )
    return outcome
