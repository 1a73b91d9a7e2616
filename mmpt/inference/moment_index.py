"""`MomentIndex`: finds the moments of many videos that fit a text.

Legend: m queries, D hidden size.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmpt.errors import CheckpointError, DataError
from mmpt.inference.index_folder import IndexFolder, IndexSettings
from mmpt.inference.inputs import Array, Texts, Video, to_vectors
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.moment_writer import open_writer
from mmpt.inference.moments import Moment, WindowTable, suppress_overlaps
from mmpt.media.s3d import S3D_WEIGHTS
from mmpt.retrieval.saved_index import SavedIndex, map_vectors
from mmpt.utils.artefact import weights_fingerprint

if TYPE_CHECKING:
    from mmpt.media.encoders import Encoder  # needs PyAV


class MomentIndex:
    """An index of the windows of many videos, which finds the moments that fit a text.

    Use `build` or `load` to get one.

    Args:
        folder: the folder of the index.
        model: embeds the texts. It must be the model that embedded the videos.
    """

    def __init__(self, folder: str | Path, model: MMPTModel):
        files = IndexFolder(folder)
        self.settings = read_finished(files)
        self.model = model
        found = weights_fingerprint(model.fusion, trainable_only=False)
        if found != self.settings.fingerprint:
            raise DataError(
                f"{folder}: must be searched with the model that it was built with "
                f"({self.settings.model}, {self.settings.dtype}, weights "
                f"{self.settings.fingerprint[:12]}), but this one has weights {found[:12]}. Give "
                "that model, or build the index again."
            )
        videos = files.read_videos()[: self.settings.num_videos]
        names, seconds = zip(*videos, strict=True)
        self.windows = WindowTable(
            names, seconds, self.settings.window_s, self.settings.stride_s
        )
        num_windows = self.settings.num_windows
        vectors_ND = map_vectors(files.vectors_file, self.settings.hidden_size)
        self.index = SavedIndex.load(
            files.faiss_file(num_windows), vectors_ND[:num_windows]
        )

    @classmethod
    def build(
        cls,
        folder: str | Path,
        model: MMPTModel,
        videos: Mapping[str, Video],
        *,
        source: str | Path | None = None,
        checkpoint: str = "checkpoint_best.pt",
        window_s: int | None = None,
        stride_s: int | None = None,
        index_type: str | None = None,
        batch_size: int = 64,
    ) -> "MomentIndex":
        """Builds an index, or extends an existing one with the videos that it does not have.

        Args:
            folder: is created if it is missing. If a call was killed, the same call continues it.
            model: embeds the windows.
            videos: a video for each name, as in `MMPTModel.encode_video`.
            source, checkpoint: where `load` loads the model from. None: the caller of `load` must
                pass the model.
            window_s: length of a window in seconds, at most `max_video_len`, which is the default.
            stride_s: seconds from the start of a window to the start of the next one. None: half a
                window.
            index_type: as for `faiss.index_factory`. None: by the number of windows.
            batch_size: number of windows in a batch.
        Raises:
            DataError: a video cannot be read, the index has another model or other windows, or the
                folder holds something else.
        """
        with open_writer(
            folder,
            model,
            source=None if source is None else str(source),
            checkpoint=checkpoint,
            window_s=window_s,
            stride_s=stride_s,
            index_type=index_type,
        ) as writer:
            new = [name for name in videos if name not in writer]
            features = (
                (name, model.video_features(videos[name], name)) for name in new
            )
            writer.add(features, batch_size)
            writer.finish()
        return cls(folder, model)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        model: MMPTModel | str | Path | None = None,
        checkpoint: str | None = None,
        *,
        device: torch.device | str | None = None,
        encoder: "str | Encoder | None" = None,
        s3d: str | Path | None = None,
    ) -> "MomentIndex":
        """Returns an index from its folder. Its files are mapped into memory, not read.

        Args:
            model: the model of the index, or where to load it from, as in
                `MMPTModel.from_pretrained`. None: the place that the index stores.
            checkpoint: as in `MMPTModel.from_pretrained`. None: the one that the index stores.
            device: device of the model, if it is loaded. None: the CPU.
            encoder, s3d: as in `MMPTModel.from_pretrained`, if the model is loaded. A search needs
                neither.
        Raises:
            DataError: the folder holds no finished index, or the index has another model.
            CheckpointError: the model cannot be loaded.
        """
        if isinstance(model, MMPTModel):
            return cls(folder, model)
        # The settings are checked before the model is loaded, which takes longer.
        settings = read_finished(IndexFolder(folder))
        source = model or settings.model
        if source is None:
            raise DataError(
                f"{folder}: does not say where its model is; give the model, or its path."
            )
        bert = settings.bert
        try:
            loaded = MMPTModel.from_pretrained(
                source,
                checkpoint or settings.checkpoint,
                bert_name=bert if bert and Path(bert).is_dir() else None,
                device=device,
                dtype=getattr(torch, settings.dtype),
                encoder=encoder,
                s3d=s3d or S3D_WEIGHTS,
            )
        except CheckpointError as err:
            if model is not None or Path(source).exists():
                raise
            raise CheckpointError(
                f"{err} The index {folder} was built with this model. If it has moved, give its "
                "new path with `--model`."
            ) from err
        return cls(folder, loaded)

    def search(
        self, queries: Texts | Array, top: int = 10, max_overlap: float = 0.0
    ) -> list[list[Moment]]:
        """Returns the best moments for each query, best first.

        Neighbouring windows of a video overlap and have similar scores. Therefore the windows are
        taken from best to worst, and a window that overlaps one that was taken is left out
        (non-maximum suppression).

        Args:
            queries: texts, or vectors float [m, D] from `MMPTModel.encode_text`.
            top: largest number of moments for each query, at least 1.
            max_overlap: largest allowed overlap of two moments of a video, as the length of their
                intersection divided by the length of their union, in 0..1.
        Raises:
            DataError: a query is not a text, or the vectors have another layout or width.
        """
        if top < 1 or not 0 <= max_overlap <= 1:
            raise DataError(
                "`top` must be at least 1 and `max_overlap` in 0..1, but they are "
                f"{top} and {max_overlap}."
            )
        queries_mD = self._query_vectors(queries)
        # A window overlaps fewer than `window / stride` windows on each side. Even if each of the
        # best moments suppresses that many, `top` moments are left.
        window_s, stride_s = self.settings.window_s, self.settings.stride_s
        num_windows = top * (1 + 2 * (window_s // stride_s))
        neighbours = self.index.search(queries_mD, num_windows)
        results = []
        for windows, scores in zip(*neighbours, strict=True):
            is_found = windows >= 0
            moments = self.windows.moments(windows[is_found], scores[is_found])
            results.append(suppress_overlaps(moments, top, max_overlap))
        return results

    def _query_vectors(self, queries: Texts | Array) -> np.ndarray:
        """Returns the vectors of queries, float32 [m, D]."""
        if isinstance(queries, Array) and queries.ndim == 2:
            vectors_mD = to_vectors(queries, "queries")
        else:
            vectors_mD = self.model.encode_text(queries)
        width = self.settings.hidden_size
        if vectors_mD.shape[1] != width:
            raise DataError(
                f"queries: vectors must have the width of the index, {width}, but have "
                f"{vectors_mD.shape[1]}."
            )
        return vectors_mD.float().cpu().numpy()


def read_finished(files: IndexFolder) -> IndexSettings:
    """Returns the settings of a finished index.

    Raises:
        DataError: there is no index, or it is not finished.
    """
    settings = files.read_settings()
    if not settings.num_videos:
        raise DataError(
            f"{files.path}: must be a finished index, but is not; run the same `mmpt index` again."
        )
    return settings
