"""`MMPTModel`: from videos and texts to vectors, scores and alignments, with a pre-trained model.

Arrays may be NumPy arrays or torch tensors on any device. They may have any strides and byte order,
and may be read-only. Results do not depend on the layout.
Vectors are pooled states, not normalised, because training compares them by their dot product.
Legend: N items, L seconds of a video, F = max_video_len, P frames per second, T text slots, D
hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize, pad

from mmpt.batch import ModelOutput, Split
from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import DataError
from mmpt.inference import inputs
from mmpt.inference.alignment import Alignment, align_sentences
from mmpt.inference.inputs import Array, Texts, Video, Videos
from mmpt.inference.pretrained import read_pretrained, write_pretrained
from mmpt.inference.texts import batches, embed_texts
from mmpt.inference.videos import CLIPS_AT_ONCE, read_video, split_videos, unit_range
from mmpt.losses.precision import upcast
from mmpt.media.s3d import S3D, S3D_WEIGHTS, load_s3d
from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.processors.downstream import DSAligner
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.processors.window_aligner import Span, average_windows, window_spans

# On the demo's held-out videos spans overlap the truth by 0.78; by 0.29 at 0.1 and by 0.12 at 1.
EPSILON = 0.3
ITERATIONS = 50
WIDER = (
    "numbers exceed the range of the model's type, or weights were set to such values. Load the "
    "model in a wider type (`dtype`), and divide features by their length"
)


class MMPTModel(nn.Module):
    """The two towers with S3D in front of one and the tokenizer in front of the other.

    It unpacks as `model, tokenizer, aligner = MMPTModel.from_pretrained(yaml)`, the original's
    contract.

    Args:
        fusion: the two towers.
        dataset: says how text and video are made into tensors.
        model: the settings `fusion` was built by.
        s3d: S3D, or the path of its weights, which are read when frames first come in; features
            need neither.
        normalise: give S3D features length 1, as the features are that models are trained on; the
            released wrapper did not, so False reproduces its scores.
    """

    def __init__(
        self,
        fusion: MMFusionSeparate,
        dataset: DatasetConfig,
        model: ModelConfig,
        *,
        s3d: S3D | str | Path = S3D_WEIGHTS,
        normalise: bool = True,
    ):
        super().__init__()
        self.fusion = fusion
        self.s3d: S3D | Path = s3d if isinstance(s3d, S3D) else Path(s3d)
        self.dataset_config, self.model_config = dataset, model
        self.normalise = normalise
        self.aligner = DSAligner(dataset, Split.TEST)
        self.tokenizer = load_tokenizer(dataset.bert_name or "", dataset.use_fast)
        self.max_video_len = self.aligner.max_video_len

    def __iter__(self) -> Iterator[Any]:
        """Yields the model, its tokenizer and its aligner, so that the model unpacks like the
        original's tuple.
        """
        return iter((self, self.tokenizer, self.aligner))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        checkpoint: str = "checkpoint_best.pt",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        s3d: S3D | str | Path = S3D_WEIGHTS,
        normalise: bool = True,
    ) -> MMPTModel:
        """Returns a trained model in eval mode.

        Args:
            source: a YAML, a folder from `save_pretrained`, a run's folder, a checkpoint next to
                its config.yaml, or a name on the Hugging Face hub.
            checkpoint: which of a YAML's or a run folder's checkpoints: a file name (looked for in
                `eval.save_path`) or a path.
            device: where to put it; None: the CPU.
            dtype: precision; None: that of a saved folder, float32 for a checkpoint.
            s3d, normalise: see the class.
        Raises:
            ConfigError: a mistake in the YAML.
            CheckpointError: weights that are missing, damaged or of another model.
        """
        model = cls(*read_pretrained(source, checkpoint), s3d=s3d, normalise=normalise)
        return model.to(device=device, dtype=dtype).eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes towers (safetensors), config and tokenizer into a folder that `from_pretrained`
        takes; S3D is apart.
        """
        write_pretrained(folder, self.fusion, self.dataset_config, self.model_config)

    @property
    def device(self) -> torch.device:
        """Device of the towers."""
        return next(self.fusion.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the towers."""
        return next(self.fusion.parameters()).dtype

    def need_s3d(self) -> S3D:
        """Returns S3D, reading its weights the first time.

        Raises:
            CheckpointError: the weights are not there; the message says where to get them.
        """
        if not isinstance(self.s3d, S3D):
            self.s3d = load_s3d(self.s3d).to(self.device, self.dtype)
        return self.s3d

    def forward(
        self,
        video_frames: Array,
        caps: Array,
        cmasks: Array,
        return_score: bool = False,
    ) -> ModelOutput | dict[str, torch.Tensor]:
        """Embeds pairs of a short video and a caption, as the original's wrapper does, for any
        number of pairs.

        Args:
            video_frames: uint8, or float in 0..1, [N, L, P, H, W, 3] with L <= F.
            caps: int64 [N, T], and
            cmasks: bool [N, T], both from the aligner.
            return_score: return {"score": float [N]}, the dot products of the pairs, instead of the
                model's output.
        Raises:
            DataError: another layout, or a video longer than F seconds.
        """
        accepted = (
            f"uint8, or floats in 0..1, [videos, 1 to {self.max_video_len} seconds, frames, "
            "height, width, 3] (`encode_video` takes longer videos)"
        )
        frames = inputs.to_tensor(video_frames, "video_frames", accepted, {6: inputs.FRAMES})
        num, seconds = frames.shape[:2]
        if not 0 < seconds <= self.max_video_len:
            raise DataError(f"video_frames must be {accepted}, but is {inputs.describe(frames)}.")
        caps = torch.as_tensor(caps, device=self.device)
        cmasks = torch.as_tensor(cmasks, device=self.device)
        vfeats = self.embed_clips(frames.flatten(0, 1), "video_frames").unflatten(0, (num, seconds))
        vfeats = pad(vfeats, (0, 0, 0, self.max_video_len - seconds))
        vmasks = torch.arange(self.max_video_len, device=vfeats.device).expand(num, -1) < seconds
        output = self.fusion(caps=caps, cmasks=cmasks, vfeats=vfeats, vmasks=vmasks)
        if return_score:
            return {"score": (output["pooled_video"] * output["pooled_text"]).sum(dim=-1)}
        return output

    def embed_clips(self, clips_NPHWC: Array, name: str = "clips") -> torch.Tensor:
        """Returns S3D features [N, 512] of clips of one second each [N, P, H, W, 3], uint8 or float
        in 0..1, some clips at a time.

        Args:
            name: what to call them in messages.
        Raises:
            DataError: another layout, type or range.
            CheckpointError: no S3D weights.
        """
        accepted = "uint8, or floats in 0..1, [clips, frames, height, width, 3]"
        clips_NPHWC = inputs.to_tensor(clips_NPHWC, name, accepted, {5: inputs.FRAMES})
        network = self.need_s3d()
        parts = []
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for chunk in clips_NPHWC.split(CLIPS_AT_ONCE):
                clips = unit_range(chunk.to(self.device).movedim(-1, 1), self.dtype, name)
                parts.append(network(clips)["video_embedding"])
        features = torch.cat(parts)
        return normalize(features, dim=-1) if self.normalise else features

    @torch.no_grad()
    def video_features(self, video: Video, name: str = "the video") -> torch.Tensor:
        """Returns the features [L, 512] of one video on the model's device; features given as such
        pass through.

        Args:
            video: a path, features or frames, as in `encode_video`.
            name: what to call an array in messages.
        Raises:
            DataError, CheckpointError: as `encode_video`.
        """
        name = str(video) if isinstance(video, str | Path) else name
        read = read_video(video, name)
        if not isinstance(read, torch.Tensor):
            return torch.cat([self.embed_clips(block, name) for block in read])
        if read.shape[1] != (width := self.fusion.video_encoder.input_dim):
            raise DataError(
                f"{name}: features must be {width} wide, as the model is, but are {read.shape[1]}."
            )
        features_LI = read.detach().to(self.device, self.dtype)
        remedy = "extract this video again, or load the model in a wider type (`dtype`)"
        inputs.require_finite(features_LI, f"{name}: features", remedy)
        return features_LI

    @torch.no_grad()
    def encode_video(self, videos: Videos, batch_size: int = 64) -> torch.Tensor:
        """Embeds videos of any length.

        A video of more than F seconds is cut into windows of F seconds, whose vectors are averaged
        by their length.

        Args:
            videos: one video or several. A video is the path of a video file or of a `.npy` file,
                features [L, 512] (any float type), or frames [L, 30, H, W, 3] in RGB (uint8, or any
                float type in 0..1). Several come as a list, tuple, array of paths, pandas Series or
                other iterable, or as an array with an axis N in front.
            batch_size: windows at once.
        Returns:
            float [N, D] on the model's device, float32 or wider.
        Raises:
            DataError: something that cannot be read as a video, or numbers beyond the range of the
                model's type.
            CheckpointError: frames, but no S3D weights.
        """
        several = split_videos(videos)
        totals: list[Any] = [0.0] * len(several)
        windows = self._windows(several, self.max_video_len, batch_size)
        for video, _, share, vector_D, _ in windows:
            totals[video] = totals[video] + share * vector_D
        return inputs.require_finite(torch.stack(totals), "videos: vectors", WIDER)

    @torch.no_grad()
    def encode_text(self, texts: Texts, batch_size: int = 256) -> torch.Tensor:
        """Embeds texts; neither S3D nor the video tower is used.

        Args:
            texts: one string, or a list, tuple, array of one axis, pandas Series or other iterable
                of strings (also NumPy's). An empty string is a text. Word pieces beyond the T - 3
                of the model are cut off.
            batch_size: texts at once.
        Returns:
            float [N, D] on the model's device, float32 or wider.
        Raises:
            DataError: no text, or something that is not a string.
        """
        several = inputs.to_texts(texts, "texts")
        ids = self.tokenizer(several, add_special_tokens=False)["input_ids"]
        vectors_ND = embed_texts(
            self.fusion, ids, self.aligner.special, self.aligner.max_text_len, batch_size
        )
        return inputs.require_finite(vectors_ND, "texts: vectors", WIDER)

    def similarity(self, videos: Videos, texts: Texts | Array) -> torch.Tensor:
        """Returns the dot products [videos, texts] that training ranks by.

        Args:
            videos: vectors [N, D] as `encode_video` returns them, or what it takes. An array of two
                axes counts as vectors, so the features of one video must be in a list.
            texts: vectors [N, D] as `encode_text` returns them, or what it takes.
        Returns:
            float [videos, texts], float32 or wider, on the device of the videos' vectors.
        Raises:
            DataError: vectors of another width, or not finite, or as `encode_video` and
                `encode_text`.
        """
        are_vectors = [isinstance(values, Array) and values.ndim == 2 for values in (videos, texts)]
        to_vectors = inputs.to_vectors
        video_ND = to_vectors(videos, "videos") if are_vectors[0] else self.encode_video(videos)
        text_ND = to_vectors(texts, "texts") if are_vectors[1] else self.encode_text(texts)
        if video_ND.shape[1] != text_ND.shape[1]:
            raise DataError(
                f"videos and texts must have vectors of one width, but have {video_ND.shape[1]} "
                f"and {text_ND.shape[1]}; put features of one video in a list."
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
        """Returns when in a video each sentence is shown: the transport plan between sentences and
        seconds.

        Seconds get their states from windows of F seconds, half a window apart, averaged.

        Args:
            video: one video, as in `encode_video`.
            sentences: as in `encode_text`; in any order, or with `monotone` in the order in which
                they are to start.
            monotone: let no sentence's peak come before that of an earlier sentence.
            epsilon: smoothness of the plan, above 0.
            iterations: of Sinkhorn's algorithm, at least 1.
        Raises:
            DataError, CheckpointError: as `encode_video` and `encode_text`.
        """
        if not (epsilon > 0 and iterations >= 1):
            raise DataError(
                f"`epsilon` must be above 0 and `iterations` at least 1, but they are {epsilon} "
                f"and {iterations}."
            )
        one = split_videos(video, "video")
        if len(one) > 1:
            raise DataError(f"video must be one video, but is {len(one)}; align them one by one.")
        texts = inputs.to_texts(sentences, "sentences")
        states, spans = [], []
        for _, span, _, _, states_LD in self._windows(one, max(self.max_video_len // 2, 1)):
            states.append(normalize(states_LD, dim=-1).cpu().numpy())
            spans.append(span)
        video_LD = torch.from_numpy(average_windows(states, spans))
        inputs.require_finite(video_LD, "video: states", WIDER)
        text_SD = self.encode_text(texts).cpu()
        return align_sentences(
            text_SD, video_LD.to(text_SD), epsilon=epsilon, iterations=iterations, monotone=monotone
        )

    def _windows(
        self, videos: dict[str, Video], stride: int, batch_size: int = 64
    ) -> Iterator[tuple[int, Span, float, torch.Tensor, torch.Tensor]]:
        """Embeds windows of F seconds, one every `stride`, that cover all of each video.

        A video is read when a batch reaches it. Its last window may be shorter.

        Yields:
            Position of the video, start and end (exclusive) in seconds, share of the video's
            seconds, pooled vector [D] and states [seconds, D], both float32 or wider.
        """
        features = (self.video_features(video, name) for name, video in videos.items())
        cut = (
            (video, span, features_LI)
            for video, features_LI in enumerate(features)
            for span in window_spans(len(features_LI), stride, self.max_video_len)
        )
        special = self.aligner.special
        caps = torch.tensor([[special.cls, special.sep]], device=self.device)
        for batch in batches(cut, batch_size):
            parts = [features_LI[slice(*span)] for _, span, features_LI in batch]
            vfeats = nn.utils.rnn.pad_sequence(parts, batch_first=True)
            lengths = torch.tensor([len(part) for part in parts], device=vfeats.device)
            vmasks = torch.arange(vfeats.shape[1], device=vfeats.device) < lengths[:, None]
            caps_N2 = caps.expand(len(parts), -1)
            pooled, states, _ = self.fusion.forward_video(vfeats, vmasks, caps_N2, caps_N2 >= 0)
            pooled, states = upcast(pooled), upcast(states)
            for row, (video, span, features_LI) in enumerate(batch):
                seconds = len(parts[row])
                share = seconds / len(features_LI)
                yield video, span, share, pooled[row], states[row, 1 : 1 + seconds]
