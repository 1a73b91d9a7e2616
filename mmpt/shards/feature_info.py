"""`features.json`: a note about the features in a folder, of feature files or of shards.

`mmpt extract` and `mmpt pack` write it. Code that reads the features compares it with the settings.
Folders without it are read, too. The width of their features is checked when a file is opened.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.utils.io import write_json
from mmpt.utils.validation import read_json_as

FILE = "features.json"


class FeatureInfo(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    encoder: str | None = None
    """Name of the network, such as `s3d`. None: unknown."""
    revision: str | None = None
    """Hash of the weights' file, or commit of a model on a hub. None: unknown."""
    width: Annotated[int, Field(ge=1)]
    """Number of values in a row."""
    fps: Annotated[float, Field(gt=0)] = 1.0
    """Rows per second of video."""
    normalised: bool | None = None
    """Whether rows were divided by their L2 norm. None: unknown."""

    def __str__(self) -> str:
        return f"{self.width}-d features at {format_rate(self.fps)}"


def format_rate(fps: float) -> str:
    """Returns a number of feature rows per second as text, such as "2 rows per second"."""
    return f"{fps:g} row{'' if fps == 1 else 's'} per second"


def read_feature_info(folder: str | Path) -> FeatureInfo | None:
    """Returns the content of `<folder>/features.json`, or None if there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    remedy = "It describes the features in this folder. Correct or remove it."
    return read_json_as(path, FeatureInfo, remedy)


def find_feature_info(config: DatasetConfig) -> FeatureInfo | None:
    """Returns `features.json` of `dataset.vfeat_dir`, or None if it is missing or damaged."""
    if config.vfeat_dir is None:
        return None
    try:
        return read_feature_info(config.vfeat_dir)
    except DataError:
        return None


def merge_feature_info(folder: str | Path, info: FeatureInfo) -> FeatureInfo:
    """Returns `info` with the values that only `<folder>/features.json` has.

    Raises:
        DataError: the folder has features of another kind.
    """
    return _merge(folder, read_feature_info(folder), info)


def write_feature_info(folder: str | Path, info: FeatureInfo) -> None:
    """Writes `<folder>/features.json`. In an existing file, unknown values are filled in.

    Raises:
        DataError: the folder has features of another kind.
    """
    found = read_feature_info(folder)
    merged = _merge(folder, found, info)
    if merged != found:
        write_json(Path(folder) / FILE, merged.model_dump())


def _merge(
    folder: str | Path, found: FeatureInfo | None, info: FeatureInfo
) -> FeatureInfo:
    """Returns `info` with the values that only `found`, the content of the file, has.

    Raises:
        DataError: they describe features of different kinds.
    """
    known = {} if found is None else found.model_dump(exclude_none=True)
    changes = []
    for name, value in info:
        old = known.setdefault(name, value)
        if value not in (None, old):
            changes.append(f"{name} {old!r} (to be added: {value!r})")
    if changes:
        raise DataError(
            f"{Path(folder) / FILE}: all features in a folder must be alike, but those here have "
            f"{', '.join(changes)}. Give another folder for the new ones, or remove this one to "
            "make its features again."
        )
    return FeatureInfo(**known)


def check_feature_info(config: DatasetConfig) -> None:
    """Compares `features.json` of `dataset.vfeat_dir` with the settings.

    Raises:
        DataError: the features have another width or rate, or the file is damaged.
    """
    if config.vfeat_dir is None:
        return
    info = read_feature_info(config.vfeat_dir)
    if info is None:
        return
    problems = []
    for key, found, ours in (
        ("model.input_dim", info.width, config.feature_dim),
        ("dataset.feature_fps", info.fps, config.feature_fps),
    ):
        if found != ours:
            problems.append(f"`{key}` must be {found:g}, but is {ours:g}")
    if problems:
        raise DataError(
            f"{Path(config.vfeat_dir) / FILE}: the folder holds {info}, so "
            f"{', and '.join(problems)}. Correct the YAML, or `dataset.vfeat_dir`."
        )
