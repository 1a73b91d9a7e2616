"""Reads one video's features, `<folder>/<id>.npy`, and reports why they cannot be used."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from mmpt.batch import FEATURE_DIM
from mmpt.utils.io import NPY_ERRORS


class FeatureError(Exception):
    """This video's features cannot be used; `passing` when a later attempt may succeed with the
    same file.
    """

    def __init__(self, reason: str, passing: bool = False):
        super().__init__(reason)
        self.passing = passing


def feature_path(folder: Path, video_id: str) -> Path:
    """Returns where the features of `video_id` lie; an id may hold slashes and dots.

    Raises:
        FeatureError: the id leads out of the folder.
    """
    if "\0" in video_id or video_id.startswith("/") or ".." in PurePosixPath(video_id).parts:
        raise FeatureError("the id leads out of the feature folder")
    return folder / f"{video_id}.npy"


def read_features(folder: Path, video_id: str) -> np.ndarray:
    """Returns a video's features as float16 [seconds, 512]; any float dtype is taken.

    Raises:
        FeatureError: missing, unreadable, truncated, of another shape or dtype, without rows, or
            not finite.
    """
    try:
        stored = np.load(feature_path(folder, video_id), allow_pickle=False)
    except FileNotFoundError:
        raise FeatureError("no such file") from None
    except OSError as err:
        raise FeatureError(f"cannot be read ({err.strerror})", passing=True) from None
    except NPY_ERRORS as err:
        reason = str(err).partition(". ")[0]  # not NumPy's advice on running code from the file
        raise FeatureError(f"not a complete .npy file ({reason})") from None
    if not isinstance(stored, np.ndarray):
        raise FeatureError("not a .npy file, but several arrays")
    if stored.dtype.kind != "f" or stored.shape[1:] != (FEATURE_DIM,) or not len(stored):
        raise FeatureError(
            f"must hold floats of shape [seconds, {FEATURE_DIM}], one second at least, but holds "
            f"{stored.dtype} of shape {list(stored.shape)}"
        )
    with np.errstate(over="ignore"):  # becomes infinity, which is looked for below
        features = stored.astype(np.float16, copy=False)
    if not np.isfinite(features).all():
        raise FeatureError("holds NaN, infinity or values beyond float16")
    return features
