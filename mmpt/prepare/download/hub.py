"""Downloads a model folder from the Hugging Face hub and gives it its name when it is whole."""

from __future__ import annotations

import os
import shutil

from huggingface_hub import hf_hub_download

from mmpt.prepare.download.catalogue import File, HubFolder
from mmpt.prepare.download.fetch import DownloadError, Outcome, check_file
from mmpt.prepare.download.kinds import kind_of
from mmpt.prepare.download.records import Records, record_of


def fetch_folder(
    source: HubFolder, records: Records, *, endpoint: str | None = None, force: bool = False
) -> Outcome:
    """Downloads the files of `source`, or compares those that are there with their records.

    Args:
        endpoint: the address of another hub.
        force: download them although the folder is there.
    Raises:
        DownloadError: the hub cannot be reached or lacks a file, or the folder is incomplete or
            has changed.
    """
    folder = records.root / source.target
    if folder.exists() and not force:
        return _check_folder(source, records)
    unfinished = folder.with_name(f".{folder.name}.part")
    for name in source.files:
        try:
            hf_hub_download(source.repo, name, local_dir=unfinished, endpoint=endpoint)
        except (OSError, ValueError) as err:  # the base classes of the library's errors
            cause = err.__cause__ or err
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise DownloadError(
                f"{source.repo}: {name} cannot be downloaded from the Hugging Face hub ({reason}). "
                "Run the same command again, or name another hub with `--mirror`."
            ) from err
    shutil.rmtree(unfinished / ".cache", ignore_errors=True)  # the library's notes
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(unfinished, folder)
    address = f"{endpoint or 'https://huggingface.co'}/{source.repo}"
    for name in source.files:
        records.add(folder / name, record_of(folder / name, address))
    return Outcome.FETCHED


def _check_folder(source: HubFolder, records: Records) -> Outcome:
    folder = records.root / source.target
    missing = [name for name in source.files if not (folder / name).is_file()]
    if missing:
        raise DownloadError(
            f"{folder}: must hold {', '.join(source.files)} of {source.repo}, but lacks "
            f"{', '.join(missing)}. Remove the folder, or replace it with `--force`."
        )
    files = [File(f"{source.target}/{name}", kind_of(name)) for name in source.files]
    outcomes = {check_file(file, records) for file in files}
    return Outcome.FOUND if Outcome.FOUND in outcomes else Outcome.INTACT
