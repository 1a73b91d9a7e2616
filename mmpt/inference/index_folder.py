"""The folder of an index of moments.

- `index.json`: the settings, and how many videos and windows can be searched. It is written last.
- `videos.jsonl`: a line for each video with its name and its length in seconds.
- `vectors.f16`: the vectors of all windows, as rows of float16, video by video.
- `index-<number of windows>.faiss`: the faiss index of the vectors.

Videos are only appended. Therefore an index can be searched while it is extended: a search reads
only as many videos and vectors from the beginning of the files as `index.json` counts.
"""

import json
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from mmpt.errors import DataError
from mmpt.utils.io import read_text, split_lines, write_json
from mmpt.utils.validation import read_json_as

AGAIN = "Build the index again in another folder with `mmpt index`."


class IndexSettings(BaseModel):
    """The content of `index.json`."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1] = 1
    model: str | None
    """Where the model is loaded from, as for `MMPTModel.from_pretrained`. None: not known."""
    checkpoint: str
    """The `checkpoint` of `MMPTModel.from_pretrained`."""
    bert: str | None = None
    """Folder of BERT as an absolute path, because a run's YAML may name it by a relative one. None:
    the YAML names a model on the Hugging Face Hub."""
    dtype: str
    """Dtype of the model."""
    fingerprint: str
    """Hash of the model's weights."""
    hidden_size: int = Field(ge=1)
    window_s: int = Field(ge=1)
    """Length of a window in seconds."""
    stride_s: int = Field(ge=1)
    """Seconds from the start of a window to the start of the next one."""
    num_videos: int = Field(0, ge=0)
    """Number of videos that can be searched. 0: the index is not finished."""
    num_windows: int = Field(0, ge=0)
    """Number of windows of these videos."""
    index_type: str = ""
    """Type of the faiss index, as for `faiss.index_factory`."""
    is_default_type: bool = True
    """The type was chosen by the number of windows, not by the user."""
    num_trained: int = Field(0, ge=0)
    """Number of windows when the faiss index was built. Later ones were added to it."""
    folders: tuple[str, ...] = ()
    """Folders that the videos or their features were in. Names of videos are paths in them."""


class IndexedVideo(NamedTuple):
    """A video of an index."""

    name: str
    seconds: int


class IndexFolder:
    """The paths and the text files of an index.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.settings_file = self.path / "index.json"
        self.videos_file = self.path / "videos.jsonl"
        self.vectors_file = self.path / "vectors.f16"

    def faiss_file(self, num_windows: int) -> Path:
        """Returns the path of the faiss index of this number of windows."""
        return self.path / f"index-{num_windows}.faiss"

    def read_settings(self) -> IndexSettings:
        """Returns the settings.

        Raises:
            DataError: the folder holds no index, or one of another format.
        """
        if not self.settings_file.is_file():
            raise DataError(
                f"{self.path}: must be a folder that `mmpt index` has made, but has no "
                f"{self.settings_file.name}."
            )
        return read_json_as(self.settings_file, IndexSettings, AGAIN)

    def write_settings(self, settings: IndexSettings) -> None:
        """Writes the settings, atomically."""
        write_json(self.settings_file, settings.model_dump())

    def read_videos(self) -> list[IndexedVideo]:
        """Returns all videos, in order. An incomplete last line is left out.

        Raises:
            DataError: the file is missing or damaged.
        """
        text = read_text(self.videos_file)
        complete, _, _ = text.rpartition("\n")
        lines = split_lines(complete)
        try:
            # Parsing all lines at once is several times as fast as one by one.
            rows = json.loads(f"[{','.join(lines)}]")
            return [IndexedVideo(row["video"], row["seconds"]) for row in rows]
        except (ValueError, KeyError, TypeError) as err:
            raise DataError(f"{self.videos_file}: is damaged ({err}). {AGAIN}") from err
