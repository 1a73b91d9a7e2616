"""Builds the index of moments: embeds windows of videos, then makes a faiss index of their vectors.

When all windows of a video are embedded, their vectors are appended to one file, and then the
video's name to another. A run that was killed therefore loses only the videos in progress. See
`index_folder.py` for the files.

Legend: R feature rows of a video, n windows, I width of the features, D hidden size.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from mmpt.errors import DataError
from mmpt.inference.embedding import embed_windows
from mmpt.inference.index_folder import (
    AGAIN,
    IndexedVideo,
    IndexFolder,
    IndexSettings,
)
from mmpt.inference.inputs import require_finite
from mmpt.inference.mmptmodel import WIDER, MMPTModel
from mmpt.inference.moments import WindowTable
from mmpt.processors.window_aligner import num_seconds
from mmpt.retrieval.saved_index import (
    SavedIndex,
    default_type,
    map_vectors,
    new_index,
)
from mmpt.shards.feature_info import format_rate
from mmpt.utils.artefact import weights_fingerprint
from mmpt.utils.io import remove_leftovers, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

LOCK_FILE = ".lock"
RETRAIN_FACTOR = 2
"""An index is trained again when it has this many times the windows of its last training."""


@contextmanager
def open_writer(
    folder: str | Path,
    model: MMPTModel,
    *,
    source: str | None,
    checkpoint: str,
    window_s: int | None = None,
    stride_s: int | None = None,
    index_type: str | None = None,
    folders: Sequence[str] = (),
) -> Iterator["MomentWriter"]:
    """Opens a new or existing index for writing, and keeps other writers out during the block.

    Args:
        folder: is created if it is missing.
        model: embeds the windows.
        source, checkpoint: where the model was loaded from; see `IndexSettings`.
        window_s: length of a window. None: as in the existing index, or `max_video_len`.
        stride_s: None: as in the existing index, or half a window.
        index_type: as for `faiss.index_factory`. None: the type of the existing index if a user
            chose it, else a type that depends on the number of windows.
        folders: folders of the videos or of their features, which are added to those in the index.
    Raises:
        DataError: the folder holds something else, or an index of another model or with other
            windows, or another process writes to it, or faiss does not know the type.
    """
    files = IndexFolder(folder)
    settings = _new_settings(files, model, source, checkpoint, window_s, stride_s)
    if index_type is not None:
        new_index(index_type, settings.hidden_size)
    with writing(folder):
        files.path.mkdir(parents=True, exist_ok=True)
    refusal = f"{folder}: another process builds this index; wait until it ends."
    with exclusive(files.path / LOCK_FILE, "building an index", refusal):
        remove_leftovers(files.path, r"index.*")
        is_new = not files.settings_file.exists()
        old = settings if is_new else files.read_settings()
        known = tuple(dict.fromkeys((*old.folders, *folders)))
        bert = _bert_folder(model) or old.bert
        current = old.model_copy(update={"folders": known, "bert": bert})
        if is_new or current != old:
            files.write_settings(current)
        with (
            open(files.videos_file, "ab") as videos_file,
            open(files.vectors_file, "ab") as vectors_file,
        ):
            yield MomentWriter(files, model, videos_file, vectors_file, index_type)


def _new_settings(
    files: IndexFolder,
    model: MMPTModel,
    source: str | None,
    checkpoint: str,
    window_s: int | None,
    stride_s: int | None,
) -> IndexSettings:
    """Returns the settings of a new index, or of the existing one after comparing the arguments.

    Raises:
        DataError: as for `open_writer`.
    """
    fingerprint = weights_fingerprint(model.fusion, trainable_only=False)
    old = None
    if files.settings_file.exists():
        old = files.read_settings()
        window_s = window_s or old.window_s
        stride_s = stride_s or old.stride_s
    elif files.path.exists():
        _check_empty(files.path)
    window_s = window_s or model.max_video_len
    stride_s = stride_s or max(window_s // 2, 1)
    if old is not None:
        wanted = (fingerprint, window_s, stride_s)
        if wanted != (old.fingerprint, old.window_s, old.stride_s):
            raise DataError(
                f"{files.path}: can only be extended with its own model and windows (weights "
                f"{old.fingerprint[:12]} of {old.model}, window {old.window_s} s, stride "
                f"{old.stride_s} s), but these are weights {fingerprint[:12]}, window "
                f"{window_s} s, stride {stride_s} s. Give the same model and leave out `--window` "
                "and `--stride`, or give another folder."
            )
        return old
    _check_windows(model, window_s, stride_s)
    return IndexSettings(
        model=source,
        checkpoint=checkpoint,
        dtype=str(model.dtype).removeprefix("torch."),
        fingerprint=fingerprint,
        hidden_size=model.fusion.video_encoder.bert.config.hidden_size,
        window_s=window_s,
        stride_s=stride_s,
    )


def _check_windows(model: MMPTModel, window_s: int, stride_s: int) -> None:
    """Raises DataError if the model cannot take these windows."""
    if not 1 <= stride_s <= window_s <= model.max_video_len:
        raise DataError(
            "`--stride` and `--window` must be in 1 <= stride <= window <= `max_video_len` "
            f"({model.max_video_len}), but are {stride_s} and {window_s} seconds."
        )
    # Otherwise, the windows of a video would depend on the rounding of its length to seconds.
    fps = model.dataset_config.feature_fps
    for name, value_s in (("window", window_s), ("stride", stride_s)):
        if not (value_s * fps).is_integer():
            raise DataError(
                f"`--{name}` must be a whole number of feature rows, and the model takes "
                f"{format_rate(fps)}, but is {value_s} seconds ({value_s * fps:g} rows)."
            )


def _bert_folder(model: MMPTModel) -> str | None:
    """Returns the folder of BERT as an absolute path, or None if it is a name on the Hub."""
    folder = Path(model.dataset_config.bert_name or "none")
    return str(folder.resolve()) if folder.is_dir() else None


def _check_empty(path: Path) -> None:
    """Raises DataError unless `path` is an empty folder."""
    if not path.is_dir():
        raise DataError(f"{path}: must be a folder for the index, but is a file.")
    others = [entry.name for entry in path.iterdir() if entry.name != LOCK_FILE]
    if others:
        raise DataError(
            f"{path}: must be an index or an empty folder, but holds {min(others)!r}. Give a new "
            "folder for the index."
        )


class MomentWriter:
    """Appends videos to an index, and makes them searchable.

    Use `open_writer` to get one.

    Args:
        files: the folder, with settings.
        model: embeds the windows.
        videos_file, vectors_file: the files of the folder, open for appending.
        index_type: as for `open_writer`.
    """

    def __init__(
        self,
        files: IndexFolder,
        model: MMPTModel,
        videos_file: IO[bytes],
        vectors_file: IO[bytes],
        index_type: str | None,
    ):
        self._files = files
        self._model = model
        self._settings = files.read_settings()
        self._videos_file = videos_file
        self._vectors_file = vectors_file
        self._index_type = index_type
        self._videos = self._recover()
        self._names = {video.name for video in self._videos}

    def __contains__(self, name: str) -> bool:
        """Returns True if the windows of this video are embedded."""
        return name in self._names

    @property
    def num_videos(self) -> int:
        """Number of videos whose windows are embedded."""
        return len(self._videos)

    @torch.no_grad()
    def add(self, videos: Iterable[tuple[str, Tensor]], batch_size: int = 64) -> None:
        """Embeds the windows of videos and appends their vectors.

        Args:
            videos: name and features [R, I] of each video. The iterable is read only as far as the
                batches need it.
            batch_size: number of windows in a batch. A batch may have windows of several videos.
        Raises:
            DataError: a name is in the index already, vectors are not finite, or the files cannot
                be written.
        """
        # `embed_windows` reads videos ahead of the windows that it yields. `features` records each
        # video that it reads. The window that ends with the last row of a video completes it.
        read: list[IndexedVideo] = []
        ends: list[int] = []  # number of feature rows of each video in `read`
        config = self._model.dataset_config

        def features() -> Iterator[Tensor]:
            for name, features_RI in videos:
                if name in self._names:
                    raise DataError(
                        f"{name}: every video of an index must have a name of its own, but this "
                        "one is used twice; rename one of the videos."
                    )
                self._names.add(name)
                num_rows = len(features_RI)
                seconds = num_seconds(num_rows, config.feature_fps)
                read.append(IndexedVideo(name, seconds))
                ends.append(num_rows)
                yield features_RI

        windows = embed_windows(
            self._model.fusion,
            features(),
            self._model.aligner.special,
            length=config.num_rows(self._settings.window_s),
            stride=config.num_rows(self._settings.stride_s),
            batch_size=batch_size,
        )
        pooled = []
        for window in windows:
            pooled.append(window.pooled)
            _, end = window.span
            if end == ends[window.video]:
                self._append(read[window.video], torch.stack(pooled))
                pooled = []

    def finish(self) -> IndexSettings:
        """Makes the faiss index of all windows, and returns the settings.

        Raises:
            DataError: there are no videos, or too few to train an index of the chosen type.
        """
        if not self._videos:
            raise DataError(
                f"{self._files.path}: an index must have at least one video, but has none."
            )
        # The new windows are added to the existing faiss index, unless another type is wanted or
        # the number of windows has grown so much that the index must be trained again.
        old = self._settings
        vectors_ND = map_vectors(self._files.vectors_file, old.hidden_size)
        num_windows = len(vectors_ND)
        is_default = self._index_type is None and old.is_default_type
        wanted = self._index_type or old.index_type
        keeps_index = (
            wanted == old.index_type and num_windows < RETRAIN_FACTOR * old.num_trained
        )
        if keeps_index and num_windows == old.num_windows:
            if is_default != old.is_default_type:  # the user has now chosen the type
                self._settings = old.model_copy(update={"is_default_type": is_default})
                self._commit()
            return self._settings
        if keeps_index:
            old_ND = vectors_ND[: old.num_windows]
            path = self._files.faiss_file(old.num_windows)
            index = SavedIndex.load(path, old_ND, is_mapped=False)
            index.extend(vectors_ND)
            num_trained = old.num_trained
        else:
            if is_default:
                wanted = default_type(num_windows, old.hidden_size)
            index = SavedIndex.build(vectors_ND, wanted)
            num_trained = num_windows
        index.save(self._files.faiss_file(num_windows))
        new_values = {
            "num_videos": len(self._videos),
            "num_windows": num_windows,
            "index_type": wanted,
            "is_default_type": is_default,
            "num_trained": num_trained,
        }
        self._settings = old.model_copy(update=new_values)
        self._commit()
        return self._settings

    def _commit(self) -> None:
        """Writes the settings, which make the new index the current one, and removes others."""
        for file in (self._vectors_file, self._videos_file):
            os.fsync(file.fileno())
        self._files.write_settings(self._settings)
        current = self._files.faiss_file(self._settings.num_windows)
        for path in self._files.path.glob("index-*.faiss"):
            if path != current:
                path.unlink()

    def _append(self, video: IndexedVideo, vectors_nD: Tensor) -> None:
        """Writes the vectors of a video, then its name."""
        what = f"{video.name}: vectors in float16"
        rows_nD = require_finite(vectors_nD.half(), what, WIDER).cpu().numpy()
        _write(self._vectors_file, rows_nD.tobytes())
        line = json.dumps({"video": video.name, "seconds": video.seconds}) + "\n"
        _write(self._videos_file, line.encode())
        self._videos.append(video)

    def _recover(self) -> list[IndexedVideo]:
        """Returns the complete videos, and removes what a killed run has written of other videos.

        Raises:
            DataError: searchable videos are missing, or the files cannot be written.
        """
        # A video is complete if its line in `videos.jsonl` ends with a line break, and the file of
        # vectors has all of its vectors.
        settings = self._settings
        videos = self._files.read_videos()
        seconds = [video.seconds for video in videos]
        names = [video.name for video in videos]
        table = WindowTable(names, seconds, settings.window_s, settings.stride_s)
        row_bytes = 2 * settings.hidden_size
        num_rows = self._vectors_file.tell() // row_bytes
        num_complete = int((table.first_window[1:] <= num_rows).sum())
        if num_complete < settings.num_videos:
            raise DataError(
                f"{self._files.path}: must have the vectors of {settings.num_videos} videos, but "
                f"has the vectors of {num_complete}. {AGAIN}"
            )
        complete = videos[:num_complete]
        lines_bytes = 0
        with open(self._files.videos_file, "rb") as file:
            for _ in complete:
                lines_bytes += len(file.readline())
        with writing(self._files.path):
            self._videos_file.truncate(lines_bytes)
            self._vectors_file.truncate(
                int(table.first_window[num_complete]) * row_bytes
            )
        return complete


def _write(file: IO[bytes], content: bytes) -> None:
    """Writes bytes to a file, so that they are kept if this process is killed."""
    with writing(file.name):
        file.write(content)
        file.flush()
