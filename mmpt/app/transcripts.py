"""Aligns the sentences of a transcript with a video, and shows the result as HTML."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from mmpt.app.results import format_span, video_element
from mmpt.app.video_files import VideoFiles, address
from mmpt.errors import DataError
from mmpt.inference.alignment import Alignment
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.prepare.captions.caption_list import iter_rows
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES, read_captions
from mmpt.reporting.figures import heat_maps

MAX_SENTENCES = 200
"""Largest number of sentences that are aligned. Each is a row of the heat map."""

Span = tuple[float, float]


class Transcript(NamedTuple):
    """The sentences of a transcript, and when they are spoken, in seconds."""

    sentences: list[str]
    spans: list[Span]


def read_transcript(path: str | Path, end_s: float) -> Transcript:
    """Returns the sentences that are spoken before the end of the video.

    Args:
        path: a file as for `read_captions`.
        end_s: length of the video in seconds.
    Raises:
        DataError: the file is of another kind or damaged, or has no or too many sentences.
    """
    path = Path(path)
    kinds = ", ".join(CAPTION_SUFFIXES)
    if path.suffix.lower() not in CAPTION_SUFFIXES:
        raise DataError(
            f"{path.name}: a transcript must be a file of the kinds {kinds}, but is not."
        )
    captions, _notes = read_captions(path)
    transcript = Transcript([], [])
    for start, end, text in iter_rows(captions):
        if start < end_s:
            transcript.sentences.append(text)
            transcript.spans.append((start, min(end, end_s)))
    num_sentences = len(transcript.sentences)
    if not 1 <= num_sentences <= MAX_SENTENCES:
        raise DataError(
            f"{path.name}: a transcript must have 1 to {MAX_SENTENCES} sentences within the "
            f"{end_s:g} seconds of the video, but has {num_sentences}. Give another one, or a part."
        )
    return transcript


class Aligner:
    """Aligns transcripts with videos of an index.

    Args:
        model: the model of the index.
        files: the files of the index.
    """

    def __init__(self, model: MMPTModel, files: VideoFiles):
        self._model = model
        self._files = files
        # The features of the last videos are kept, because these networks are slow without a GPU.
        self._features = lru_cache(maxsize=8)(self._read_features)

    def align(self, name: str, path: str | Path, monotone: bool) -> str:
        """Returns the alignment of a transcript with a video as HTML.

        Args:
            name: the video.
            path: the transcript.
            monotone: as for `MMPTModel.align`.
        Raises:
            DataError: the transcript or the video cannot be read, or the video has no file.
            CheckpointError: there are no features, and the weights of S3D are missing.
        """
        features_RI = self._features(name)
        fps = self._model.dataset_config.feature_fps
        transcript = read_transcript(path, len(features_RI) / fps)
        alignment = self._model.align(
            features_RI, transcript.sentences, monotone=monotone
        )
        has_video = self._files.video(name) is not None
        return to_html(name, transcript, alignment, has_video)

    def _read_features(self, name: str) -> Tensor:
        """Returns the features [R, I] of a video, from their file or from its video file."""
        source = self._files.features(name) or self._files.video(name)
        if not self._files.has_folders:
            raise DataError(
                f"{name}: cannot be aligned: the index records no folder of videos or features "
                "(for example, if `mmpt index --shards` built it). Start `mmpt app` again with "
                "`--videos DIR` or `--features DIR` (.npy files with the names of the videos)."
            )
        if source is None:
            raise DataError(
                f"{name}: has no file in the folders of the index. Give its folder with "
                "`--videos` or `--features`."
            )
        return self._model.video_features(source).cpu()


def to_html(
    name: str,
    transcript: Transcript,
    alignment: Alignment,
    has_video: bool,
) -> str:
    """Returns an alignment as HTML: the video, the heat maps, and a row for each sentence.

    A click on a row or a heat map plays the video from there; `alignment.js` does it.
    """
    loader = PackageLoader("mmpt.app")
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    rows = zip(
        transcript.sentences,
        transcript.spans,
        alignment.spans,
        alignment.scores.tolist(),
        strict=True,
    )
    figure = heat_maps(
        transcript.sentences,
        alignment,
        title=f"alignment of the transcript with {name}",
        truth=transcript.spans,
    )
    video = video_element(address(name), 'preload="metadata"') if has_video else None
    return templates.get_template("alignment.html").render(
        name=name,
        video=video,
        seconds=alignment.plan.shape[1],
        figure=figure,
        rows=rows,
        span=format_span,
    )
