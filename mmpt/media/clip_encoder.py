"""Runs an encoder on batches of clips, on a CPU or GPU, so that a clip's features do not
depend on other clips.

The size and content of a batch change the order in which a network adds numbers, and thus the last
bits of its output. A rerun after an interruption combines clips in other batches, but must give the
same bytes. Therefore a GPU always gets full batches; the last one is padded. A CPU gets one clip
at a time, which is not slower with S3D: 1.65 s per clip on one core, against 1.73 s in a batch of
four.

Legend: N clips, D width of the features.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import nn

from mmpt.errors import DataError, DeviceMemoryError
from mmpt.media.custom_encoder import describe
from mmpt.media.encoders import Encoder
from mmpt.media.frame_graph import SIZE, Sampling
from mmpt.media.s3d import S3D, load_s3d
from mmpt.utils.io import file_hash
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
T = TypeVar("T")

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

DEVICE_ERROR: type[Exception] = getattr(
    torch, "AcceleratorError", torch.OutOfMemoryError
)
"""Exception after which the device cannot be used in this process. Old versions of torch do not
have it."""


class EncoderError(DataError):
    """An encoder raises an exception for the frames of a clip."""


def open_network(
    weights: Path, *, words: Path | None = None, random_weights: bool = False
) -> tuple[S3D, str]:
    """Returns S3D in eval mode, and a text that identifies its weights.

    The text is the SHA-256 of the weights, or the seed of random weights.

    Args:
        weights: path of the released weights.
        words: path of the text tower's words (`s3d_dict.npy`). Features do not need them.
        random_weights: ignore `weights` and draw random ones. Every call draws the same.
    Raises:
        CheckpointError: the weights are missing or do not fit.
    """
    if random_weights:
        logger.warning("random weights: these features only serve to try the pipeline")
        return _random_s3d(words), "random, seed 0, Kaiming"
    network = load_s3d(weights, words)
    return network, f"sha256 {file_hash(weights)}"


def _random_s3d(words: Path | None) -> S3D:
    """Returns S3D with the same random weights in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = S3D(words)
        # With torch's default initialisation, activations vanish with depth, and all clips get
        # nearly equal features.
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.eval()


@dataclass
class PendingFeatures:
    """The features of a batch that the device may still be computing."""

    _rows: torch.Tensor  # float32 [N, D], on the CPU
    _num_clips: int
    _event: torch.cuda.Event | None = None  # recorded after the copy from the GPU

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what the encoder returned for the batch with its padding: [N, D]."""
        return tuple(self._rows.shape)

    def result(self) -> np.ndarray:
        """Waits for the device. Returns the features of the clips, float32 [clips, D]."""
        if self._event is not None:
            self._event.synchronize()
        rows_ND = self._rows[: self._num_clips]  # without the padding of the batch
        return rows_ND.numpy()


class ClipEncoder:
    """Runs an encoder on batches of clips.

    Args:
        encoder: its torch module, if it is one, is moved to the device and set to eval mode.
        device: the device that it runs on.
        dtype: a key of `DTYPES`, the type in which convolutions are computed. Weights stay float32.
        batch_size: number of clips per batch on a GPU.
        name: value of `--encoder`, for messages. Default: the name of the class.
        halves_batch_on_oom: halve the batch size whenever the GPU is out of memory. The last bits
            of features may then differ.
    Raises:
        DataError: the encoder raises an exception for a black clip, or its methods return values of
            another kind than `Encoder` says.
    """

    def __init__(
        self,
        encoder: Encoder,
        device: torch.device,
        dtype: str = "fp32",
        batch_size: int = 64,
        name: str | None = None,
        *,
        halves_batch_on_oom: bool = False,
    ):
        self.name = name or type(encoder).__name__
        self.device = device
        self.dtype = DTYPES[dtype]
        self.batch_size = 1
        if device.type == "cuda":
            self.batch_size = batch_size
        self._halves_batch_on_oom = halves_batch_on_oom
        if isinstance(encoder, nn.Module):
            encoder.eval().to(device)
        self.encoder = encoder
        self.sampling = self._find_sampling()
        self.width: int = getattr(encoder, "width", None) or self._in_memory(
            self._find_width
        )
        """D."""

    @contextmanager
    def _calling(self, method: str) -> Iterator[None]:
        """Converts an exception of the block, which calls a method of the encoder.

        Raises:
            EncoderError: the method raises an exception.
            DeviceMemoryError: the batch does not fit into the memory of the GPU.
        """
        try:
            yield
        except torch.OutOfMemoryError as err:
            remedy = "Give a smaller `--batch_size`."
            if self._halves_batch_on_oom:
                remedy = "Give a smaller encoder, or `--device cpu`."
            raise DeviceMemoryError(
                f"`--encoder {self.name}`: out of GPU memory with a batch size of "
                f"{self.batch_size}. {remedy}"
            ) from err
        except DEVICE_ERROR:
            raise
        except Exception as err:
            raise EncoderError(
                f"`--encoder {self.name}`: its method `{method}` raises {describe(err)}"
            ) from err

    def _as_tensor(self, method: str, value: Any) -> torch.Tensor:
        """Returns what a method of the encoder has returned as a tensor."""
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as err:
            raise DataError(
                f"`--encoder {self.name}`: its method `{method}` must return a tensor or an array, "
                f"but returns {type(value).__name__}."
            ) from err

    def _find_sampling(self) -> Sampling:
        """Returns which frames make a row."""
        with self._calling("sampling"):
            sampling = self.encoder.sampling()
        if not isinstance(sampling, Sampling):
            raise DataError(
                f"`--encoder {self.name}`: its method `sampling` must return a "
                f"`mmpt.media.Sampling`, but returns {type(sampling).__name__}."
            )
        if sampling.frame_rate <= 0 or sampling.num_frames < 1:
            raise DataError(
                f"`--encoder {self.name}`: the frame rate of its `sampling` must be greater than "
                f"0, and its number of frames at least 1, but is {sampling}."
            )
        return sampling

    def _find_width(self) -> int:
        """Returns the width of the features of a black clip."""
        size = self.sampling.size or SIZE
        shape = (self.sampling.num_frames, size, size, 3)
        try:
            clip = self.prepare(np.zeros(shape, dtype=np.uint8))
            shape_ND = self._start([clip]).shape
        except EncoderError as err:
            raise DataError(
                f"{err}, for black frames of {size} x {size}. Correct it, or give the class an "
                "attribute `width`, so that its width need not be measured."
            ) from err
        if len(shape_ND) != 2 or shape_ND[1] < 1:
            self._refuse_shape(shape_ND, "width")
        width = shape_ND[1]
        if shape_ND[0] != self.batch_size:
            self._refuse_shape(shape_ND, width)
        return width

    def prepare(self, frames_THWC: np.ndarray) -> torch.Tensor:
        """Returns the network's input for one row, on the CPU. Several threads call it.

        Args:
            frames_THWC: uint8, RGB.
        Raises:
            EncoderError: the encoder raises an exception for these frames.
            DataError: the encoder returns something else than a tensor or an array.
        """
        with self._calling("prepare"):
            prepared: Any = self.encoder.prepare(frames_THWC)
        return self._as_tensor("prepare", prepared)

    def _in_memory(self, run: Callable[[], T]) -> T:
        """Returns `run()`. If the GPU is out of memory, it may be repeated with smaller batches."""
        while True:
            try:
                return run()
            except DeviceMemoryError:
                if not self._halves_batch_on_oom or self.batch_size == 1:
                    raise
            torch.cuda.empty_cache()  # not in the block, whose traceback holds tensors
            self.batch_size //= 2
            message = "out of GPU memory; %s now uses a batch size of %d"
            logger.warning(message, self.name, self.batch_size)

    def run(self, clips: Iterable[torch.Tensor]) -> np.ndarray:
        """Returns the features of any number of clips, float32 [clips, D].

        Args:
            clips: as `prepare` returns them. They are read in batches.
        Raises:
            EncoderError, DataError: as for `start`.
        """
        rows, iterator = [], iter(clips)
        while batch := list(islice(iterator, self.batch_size)):
            while batch:
                rows.append(self._in_memory(partial(self._run_first, batch)))
                batch = batch[len(rows[-1]) :]  # not empty if the batch size was halved
        return np.concatenate(rows)

    def _run_first(self, clips: Sequence[torch.Tensor]) -> np.ndarray:
        """Returns the features of the first clips, at most `batch_size`."""
        return self.start(clips[: self.batch_size]).result()

    def start(self, clips: Sequence[torch.Tensor]) -> PendingFeatures:
        """Starts to encode clips. On a GPU, returns before the features are computed.

        Args:
            clips: 1 to `batch_size` clips, as `prepare` returns them.
        Raises:
            EncoderError: the encoder raises an exception for these clips.
            DataError: the clips have several shapes, or the features have a wrong one.
        """
        pending = self._start(clips)
        if pending.shape != (self.batch_size, self.width):
            self._refuse_shape(pending.shape, self.width)
        return pending

    @torch.inference_mode()
    def _start(self, clips: Sequence[torch.Tensor]) -> PendingFeatures:
        """Does the work of `start`, without checking the shape of the features."""
        num_clips = len(clips)
        assert 0 < num_clips <= self.batch_size
        is_gpu = self.device.type == "cuda"
        self._check_one_shape(clips)
        # Step 1: copy the clips into a full batch. Slots without a clip stay black.
        batch_shape = (self.batch_size, *clips[0].shape)
        inputs = torch.zeros(batch_shape, dtype=clips[0].dtype, pin_memory=is_gpu)
        for slot, clip in zip(inputs, clips, strict=False):
            slot.copy_(clip)
        # Step 2: run the network on the device. Float32 means exact float32, without TF32.
        is_exact = self.dtype == torch.float32
        with (
            torch.autocast(self.device.type, dtype=self.dtype, enabled=not is_exact),
            torch.backends.cudnn.flags(
                enabled=True, deterministic=True, allow_tf32=not is_exact
            ),
            self._calling("encode"),
        ):
            inputs = inputs.to(self.device, non_blocking=True)
            encoded: Any = self.encoder.encode(inputs)
        rows_ND = self._as_tensor("encode", encoded).float()
        if not is_gpu:
            return PendingFeatures(rows_ND, num_clips)
        # Step 3: start the copy to the CPU. The event is recorded when it is complete.
        on_host_ND = torch.empty(rows_ND.shape, dtype=rows_ND.dtype, pin_memory=True)
        on_host_ND.copy_(rows_ND, non_blocking=True)
        event = torch.cuda.Event()
        # torch's current GPU may be another one.
        stream = torch.cuda.current_stream(self.device)
        event.record(stream)
        return PendingFeatures(on_host_ND, num_clips, event)

    def _check_one_shape(self, clips: Sequence[torch.Tensor]) -> None:
        """Raises DataError if the clips of a batch have several shapes."""
        first = list(clips[0].shape)
        for clip in clips:
            if list(clip.shape) != first:
                raise DataError(
                    f"`--encoder {self.name}`: its method `prepare` must return inputs of one "
                    f"shape, but returns {first} and {list(clip.shape)}. Resize the frames, or "
                    "give `--batch_size 1`."
                )

    def _refuse_shape(self, found: Sequence[int], width: int | str) -> NoReturn:
        """Raises DataError for features of another shape than [batch size, width]."""
        raise DataError(
            f"`--encoder {self.name}`: its method `encode` must return features of the shape "
            f"[{self.batch_size}, {width}], one row for each clip, but returns {list(found)}. The "
            "width must not depend on the size of the frames: pool the features, or resize the "
            "frames in `prepare`."
        )
