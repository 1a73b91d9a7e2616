"""`MMPTModel`: a pre-trained model that embeds videos and texts, scores pairs and aligns them.

Arrays may be NumPy arrays or torch tensors on any device. They may have any strides and byte order,
and may be read-only. Results do not depend on the layout.

Vectors are pooled states. They are not normalised, because training compares them by their dot
product.

Legend: N items, R feature rows and L seconds of a video, F video slots (rows), P frames per second,
T text slots, D hidden size, I width of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmpt.batch import ModelOutput, Split
from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import DataError
from mmpt.inference import hub, inputs
from mmpt.inference.alignment import EPSILON, ITERATIONS, Alignment, align_sentences
from mmpt.inference.embedding import (
    Window,
    embed_texts,
    embed_windows,
    states_of_seconds,
    tokenise_texts,
)
from mmpt.inference.frame_encoder import FrameEncoder
from mmpt.inference.inputs import Array, Texts, Video, Videos
from mmpt.inference.model_card import make_card
from mmpt.inference.origin import Origin
from mmpt.inference.pretrained import read_pretrained, write_pretrained
from mmpt.inference.video_features import VideoFeatures
from mmpt.inference.videos import split_videos
from mmpt.media.s3d import S3D, S3D_WEIGHTS
from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.processors.downstream import DSAligner
from mmpt.processors.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from mmpt.media.encoders import Encoder

WIDER = (
    "numbers exceed the range of the model's type, or weights were set to such values. Load the "
    "model in a wider type (`dtype`), and divide features by their L2 norm"
)


class MMPTModel(nn.Module):
    """A two-tower model together with a network for video frames and a tokenizer for texts.

    As in the original, it can be unpacked:
    `model, tokenizer, aligner = MMPTModel.from_pretrained(yaml)`.

    Args:
        fusion: the two towers.
        dataset: configuration of the conversion of text and video to tensors.
        model: the configuration that `fusion` was built with.
        encoder: the network that turns frames into features. It is a value of `mmpt extract
            --encoder`, or an object with the methods of `mmpt.media.encoders.Encoder`. None: the
            encoder of the training run, if `origin` names S3D, or the revision of a model of the
            Hugging Face Hub or of timm; S3D if `origin` names none. It is loaded when frames are
            embedded for the first time, and not needed for features. A class of your own is only
            imported if you name it.
        s3d: S3D, or the path of its weights.
        normalise: divide the features of frames by their L2 norm. None: as for training, as far as
            `origin` says, else True. The released wrapper does not; False reproduces its scores.
        origin: where the model is from. The model card describes it.
    """

    def __init__(
        self,
        fusion: MMFusionSeparate,
        dataset: DatasetConfig,
        model: ModelConfig,
        *,
        encoder: str | Encoder | None = None,
        s3d: S3D | str | Path = S3D_WEIGHTS,
        normalise: bool | None = None,
        origin: Origin | None = None,
    ):
        super().__init__()
        self.fusion = fusion
        self.dataset_config = dataset
        self.model_config = model
        self.origin = origin or Origin()
        frames = FrameEncoder(
            self.origin,
            fusion.video_encoder.input_dim,
            dataset.feature_fps,
            encoder=encoder,
            s3d=s3d,
            normalise=normalise,
        )
        self.features = VideoFeatures(frames)
        self.aligner = DSAligner(dataset, Split.TEST)
        self.tokenizer = load_tokenizer(dataset.bert_name or "", dataset.use_fast)
        self.max_video_len = self.aligner.max_video_len

    def __iter__(self) -> Iterator[Any]:
        """Yields the model, its tokenizer and its aligner, for unpacking."""
        return iter((self, self.tokenizer, self.aligner))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        checkpoint: str = "checkpoint_best.pt",
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        encoder: str | Encoder | None = None,
        s3d: S3D | str | Path = S3D_WEIGHTS,
        normalise: bool | None = None,
        bert_name: str | None = None,
    ) -> MMPTModel:
        """Returns a trained model in eval mode.

        Args:
            source: a YAML, a folder from `save_pretrained`, a run's folder, a checkpoint next to
                its config.yaml, or a name on the Hugging Face Hub.
            checkpoint: the checkpoint to load if `source` is a YAML or a run's folder: a file name
                (looked up in `eval.save_path`) or a path.
            revision: branch, tag or commit on the Hub. If given, `source` must be a name there,
                `user/name`.
            device: device of the model. None: the CPU.
            dtype: dtype of the weights. None: the dtype in which a folder was saved, or float32 for
                a checkpoint.
            encoder, s3d, normalise: see the class.
            bert_name: folder of BERT, or its name on the Hub. None: `dataset.bert_name` of the
                YAML. A folder from `save_pretrained` does not need it.
        Raises:
            ConfigError: there is a mistake in the YAML.
            CheckpointError: the weights are missing, damaged or of another model.
            HubError: the model cannot be downloaded.
        """
        fusion, dataset, config, origin = read_pretrained(
            source, checkpoint, revision, bert_name
        )
        model = cls(
            fusion,
            dataset,
            config,
            encoder=encoder,
            s3d=s3d,
            normalise=normalise,
            origin=origin,
        )
        return model.to(device=device, dtype=dtype).eval()

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        results: Sequence[EvalResult] = (),
        overwrite_card: bool = False,
    ) -> None:
        """Writes towers (safetensors), config, tokenizer and model card for `from_pretrained`.

        The network that turns frames into features is not included.

        Args:
            folder: created if it is missing.
            name: name of the model in its card. None: that of the folder.
            results: results of evaluations for the card, as `mmpt.evaluators.card_results` reads
                them.
            overwrite_card: replace a card (README.md) that you have changed. It is kept by default.
        """
        card = make_card(
            name or Path(folder).resolve().name,
            self.fusion,
            self.dataset_config,
            self.origin,
            results,
        )
        write_pretrained(
            folder,
            self.fusion,
            self.dataset_config,
            self.model_config,
            self.origin,
            card=card,
            overwrite_card=overwrite_card,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        results: Sequence[EvalResult] = (),
        overwrite_card: bool = False,
        token: str | None = None,
    ) -> str:
        """Uploads the model to the Hugging Face Hub, as `save_pretrained` writes it.

        Args:
            repo_id: `user/name`. The repository is created if it is missing.
            private: the repository must be private.
            results: as for `save_pretrained`.
            overwrite_card: replace a card on the Hub that you have changed. It is kept by default.
            token: access token. None: that of `hf auth login` or HF_TOKEN.
        Returns:
            The address of the commit.
        Raises:
            HubError: there is no token, or the Hub refuses it or cannot be reached.
        """
        hub.check_name(repo_id)
        hub.check_token(repo_id, token)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, name=repo_id, results=results)
            return hub.upload(
                Path(folder),
                repo_id,
                private=private,
                overwrite_card=overwrite_card,
                token=token,
            )

    @property
    def device(self) -> torch.device:
        """Device of the towers."""
        return next(self.fusion.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the towers."""
        return next(self.fusion.parameters()).dtype

    def load_encoder(self) -> None:
        """Loads the encoder that turns frames into features. Otherwise, the first frames load it.

        Raises:
            DataError: the model takes features of an encoder that cannot be loaded here.
            CheckpointError: the weights of S3D are missing. The message says how to download them.
        """
        self.features.frames.load(self.device, self.dtype)

    def forward(
        self,
        video_frames: Array,
        caps: Array,
        cmasks: Array,
        return_score: bool = False,
    ) -> ModelOutput | dict[str, Tensor]:
        """Embeds pairs of a short video and a caption, like the original's wrapper.

        Unlike the original, it accepts any number of pairs.

        Args:
            video_frames: uint8, or float in 0..1, [N, L, P, H, W, 3] with L <= F.
            caps: int64 [N, T], from the aligner.
            cmasks: bool [N, T], from the aligner.
            return_score: return {"score": float [N]}, the dot products of the pairs, instead of the
                model's output.
        Raises:
            DataError: the frames have another layout, or a video is longer than F seconds.
        """
        accepted = (
            f"uint8, or floats in 0..1, [videos, 1 to {self.max_video_len} seconds, frames, "
            "height, width, 3] (`encode_video` takes longer videos)"
        )
        frames = inputs.to_tensor(
            video_frames, "video_frames", accepted, {6: inputs.FRAMES}
        )
        num_videos, num_seconds = frames.shape[:2]
        num_padded = self.max_video_len - num_seconds
        if num_seconds == 0 or num_padded < 0:
            raise inputs.refusal("video_frames", accepted, frames)

        # Embed the seconds of all videos, then pad the videos to F seconds.
        clip_features = self.embed_clips(frames.flatten(0, 1), "video_frames")
        vfeats = clip_features.unflatten(0, (num_videos, num_seconds))
        vfeats = pad(vfeats, (0, 0, 0, num_padded))
        is_real_F = torch.arange(self.max_video_len, device=vfeats.device) < num_seconds
        output = self.fusion(
            caps=torch.as_tensor(caps, device=self.device),
            cmasks=torch.as_tensor(cmasks, device=self.device),
            vfeats=vfeats,
            vmasks=is_real_F.expand(num_videos, -1),
        )
        if return_score:
            products = output["pooled_video"] * output["pooled_text"]
            return {"score": products.sum(dim=-1)}
        return output

    def embed_clips(self, clips_NPHWC: Array, name: str = "clips") -> Tensor:
        """Returns the features [N, I] of the frames of N rows. With S3D, a row is a second.

        Args:
            clips_NPHWC: uint8, or float in 0..1, [N, P, H, W, 3].
            name: name of the argument, for messages.
        Raises:
            DataError: the clips have another layout, dtype or range, or the model takes features of
                an encoder that cannot be loaded here.
            CheckpointError: the weights of S3D are missing.
        """
        accepted = "uint8, or floats in 0..1, [clips, frames, height, width, 3]"
        clips = inputs.to_tensor(clips_NPHWC, name, accepted, {5: inputs.FRAMES})
        return self.features.frames.encode_clips(clips, name, self.device, self.dtype)

    @torch.no_grad()
    def video_features(self, video: Video, name: str = "the video") -> Tensor:
        """Returns the features [R, I] of one video in the model's dtype and on its device.

        Args:
            video: a path, features or frames, as in `encode_video`. Features need no encoder.
            name: name of an array, for messages.
        Raises:
            DataError, CheckpointError: as for `encode_video`.
        """
        return self.features.read(video, name, self.device, self.dtype)

    @torch.no_grad()
    def encode_video(self, videos: Videos, batch_size: int = 64) -> Tensor:
        """Embeds videos of any length.

        A video of more than F feature rows is cut into windows of F rows. The vector of the video
        is the mean of the windows' vectors, weighted by the windows' lengths.

        Args:
            videos: one video or several. A video is the path of a video file or of a `.npy` file,
                features [R, I] (any float dtype), or frames [R, P, H, W, 3] in RGB (uint8, or any
                float dtype, in 0..1), where P frames make a row: 30 with S3D. Several videos are a
                list, tuple, array of paths, pandas Series or other iterable, or an array with a
                leading axis N.
            batch_size: number of windows in a batch.
        Returns:
            float32 or float64 [N, D] on the model's device.
        Raises:
            DataError: something cannot be read as a video, or numbers exceed the range of the
                model's dtype.
            CheckpointError: there are frames, but the weights of S3D are missing.
        """
        video_by_name = split_videos(videos)
        totals: list[Any] = [0.0] * len(video_by_name)
        stride = self.aligner.num_video_slots
        for window in self._windows(video_by_name, stride, batch_size):
            weighted = window.share * window.pooled
            totals[window.video] = totals[window.video] + weighted
        vectors_ND = torch.stack(totals)
        return inputs.require_finite(vectors_ND, "videos: vectors", WIDER)

    @torch.no_grad()
    def encode_text(self, texts: Texts, batch_size: int = 256) -> Tensor:
        """Embeds texts. Neither S3D nor the video tower is used.

        Args:
            texts: one string, or a list, tuple, array of one axis, pandas Series or other iterable
                of strings (also NumPy's). Empty strings are allowed. Word pieces after the first
                T - 3 are cut off, which a warning reports.
            batch_size: number of texts in a batch.
        Returns:
            float32 or float64 [N, D] on the model's device.
        Raises:
            DataError: there is no text, or something is not a string.
        """
        strings = inputs.to_texts(texts, "texts")
        num_slots = self.aligner.max_text_len
        ids = tokenise_texts(self.tokenizer, strings, num_slots)
        return self.encode_ids(ids, batch_size)

    @torch.no_grad()
    def encode_ids(self, ids: Sequence[list[int]], batch_size: int = 256) -> Tensor:
        """Embeds texts that are tokenised already; see `encode_text`.

        Args:
            ids: word-piece ids of each text, without special tokens.
            batch_size: number of texts in a batch.
        Returns:
            float32 or float64 [N, D] on the model's device.
        """
        vectors_ND = embed_texts(
            self.fusion,
            ids,
            self.aligner.special,
            self.aligner.max_text_len,
            batch_size,
        )
        return inputs.require_finite(vectors_ND, "texts: vectors", WIDER)

    def similarity(self, videos: Videos, texts: Texts | Array) -> Tensor:
        """Returns the similarity of all pairs of videos and texts: their dot products.

        Args:
            videos: vectors [N, D] from `encode_video`, or any argument that it accepts. An array of
                two axes is interpreted as vectors; put the features of a single video into a list.
            texts: vectors [N, D] from `encode_text`, or any argument that it accepts.
        Returns:
            float32 or float64 [videos, texts] on the device of the videos' vectors.
        Raises:
            DataError: the widths of the vectors differ, or vectors are not finite; or as for
                `encode_video` and `encode_text`.
        """
        if isinstance(videos, Array) and videos.ndim == 2:
            video_ND = inputs.to_vectors(videos, "videos")
        else:
            video_ND = self.encode_video(videos)
        if isinstance(texts, Array) and texts.ndim == 2:
            text_ND = inputs.to_vectors(texts, "texts")
        else:
            text_ND = self.encode_text(texts)
        video_width = video_ND.shape[1]
        text_width = text_ND.shape[1]
        if video_width != text_width:
            raise DataError(
                f"videos and texts must have vectors of one width, but have {video_width} and "
                f"{text_width}; put features of one video in a list."
            )
        return video_ND @ text_ND.to(video_ND).T

    @torch.no_grad()
    def align(
        self,
        video: Video,
        sentences: Texts,
        *,
        monotone: bool = False,
        epsilon: float = EPSILON,
        iterations: int = ITERATIONS,
    ) -> Alignment:
        """Finds the seconds of a video that show what each sentence says.

        The video is cut into windows of F feature rows that overlap by half. The state of a row is
        the mean of its states in the windows that contain it. The state of a second is the mean of
        its rows' states. Optimal transport between sentences and seconds gives the alignment.

        Args:
            video: one video, as in `encode_video`.
            sentences: texts, as in `encode_text`, in any order. With `monotone`, they must be in
                the order in which the video shows them.
            monotone: require that no sentence has its peak before that of an earlier sentence.
            epsilon: smoothness of the plan, above 0. A smaller value gives a sharper plan.
            iterations: iterations of Sinkhorn's algorithm, at least 1.
        Raises:
            DataError, CheckpointError: as for `encode_video` and `encode_text`.
        """
        if not (epsilon > 0 and iterations >= 1):
            raise DataError(
                f"`epsilon` must be above 0 and `iterations` at least 1, but they are {epsilon} "
                f"and {iterations}."
            )
        video_by_name = split_videos(video, "video")
        if len(video_by_name) > 1:
            raise DataError(
                f"video must be one video, but is {len(video_by_name)}; align them one by one."
            )
        texts = inputs.to_texts(sentences, "sentences")

        stride = max(self.aligner.num_video_slots // 2, 1)
        windows = self._windows(video_by_name, stride)
        video_LD = states_of_seconds(windows, self.dataset_config.feature_fps)
        inputs.require_finite(video_LD, "video: states", WIDER)
        text_SD = self.encode_text(texts).cpu()
        return align_sentences(
            text_SD,
            video_LD.to(text_SD),
            epsilon=epsilon,
            iterations=iterations,
            monotone=monotone,
        )

    def _windows(
        self, videos: dict[str, Video], stride: int, batch_size: int = 64
    ) -> Iterator[Window]:
        """Embeds windows of F rows, one every `stride` rows, that cover each video."""
        features = (self.video_features(video, name) for name, video in videos.items())
        return embed_windows(
            self.fusion,
            features,
            self.aligner.special,
            length=self.aligner.num_video_slots,
            stride=stride,
            batch_size=batch_size,
        )
