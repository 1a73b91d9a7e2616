"""Speed of feature extraction and of its parts: ours, and a plain loop over videos.

    python benchmarks/extract.py                                # about a minute on 2 cores
    python benchmarks/extract.py --device cuda --seconds 60     # with a GPU, on longer videos

Both sides decode with PyAV in one thread, and make 30 frames of 224 x 224 pixels per second of
video. The plain loop converts each frame to RGB at full size and resizes it with torch. Its filter
is bicubic with antialiasing, like that of FFmpeg. A third side uses torch's cheapest filter,
bilinear, which gives different frames.

Decoding and preprocessing are measured in CPU time of one core. The sides take turns. The network
and the whole extraction are measured in wall-clock time on all cores, with random weights.
"""

import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch.nn import functional

from mmpt.cli.main import choose_device
from mmpt.media.clip_encoder import DTYPES, ClipEncoder
from mmpt.media.encoders import S3DEncoder
from mmpt.media.frame_graph import FPS, SIZE, scaled_size
from mmpt.media.s3d import S3D
from mmpt.media.video_list import find_videos
from mmpt.media.video_reader import VideoFile
from mmpt.prepare.features.encoder_run import EncoderRun
from mmpt.prepare.features.extraction import Extraction
from mmpt.shards.feature_rows import finish_features
from results import Figure, Options, rates, record, run_script, time_in_turns, timed

KINDS = {
    "h264_360p_30": (640, 360, 30, "libx264"),
    "h264_360p_25": (640, 360, 25, "libx264"),
    "vp9_480p_30": (854, 480, 30, "libvpx-vp9"),
    "h264_720p_30": (1280, 720, 30, "libx264"),
}
OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "23"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "33", "b": "0"},
}


def make_video(
    path: Path, width: int, height: int, fps: int, codec: str, seconds: float
) -> None:
    """Writes a video of a textured wall, filmed by a moving camera."""
    rng = np.random.default_rng(0)
    # A smooth pattern with noise. It is larger than the picture, so that the camera can move.
    coarse_size = (1, 3, height // 8 + 20, width // 8 + 20)
    levels = rng.integers(0, 256, coarse_size)
    coarse = torch.from_numpy(levels.astype(np.float32))
    fine = functional.interpolate(coarse, scale_factor=8, mode="bicubic")
    wall = fine[0].permute(1, 2, 0).numpy()
    noise = rng.integers(-8, 8, wall.shape)
    wall = np.clip(wall + noise, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=OPTIONS[codec])
        stream.width = width
        stream.height = height
        stream.pix_fmt = "yuv420p"
        num_frames = round(seconds * fps)
        for number in range(num_frames):
            x = 2 * number % 160
            y = number % 160
            view = wall[y : y + height, x : x + width]
            picture = np.ascontiguousarray(view)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts = number
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def count_frames(path: Path) -> int:
    """Returns the number of frames in the file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def plain_frames(path: Path, mode: str = "bicubic") -> Iterator[torch.Tensor]:
    """Yields 30 frames per second of video, float [3, 224, 224] from 0 to 1.

    Each frame of the file is converted at full size, resized and cropped. It is then yielded once
    for every 1/30 s that it is shown.
    """
    num_frames = 0  # yielded so far
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            whole = pixels.permute(2, 0, 1)[None].float()
            height, width = scaled_size(frame.height, frame.width)
            (scaled,) = functional.interpolate(
                whole, size=(height, width), mode=mode, antialias=mode == "bicubic"
            )
            top = (height - SIZE) // 2
            left = (width - SIZE) // 2
            crop = scaled[:, top : top + SIZE, left : left + SIZE]
            picture = crop.clamp(0, 255) / 255
            end_s = frame.time + 1 / stream.average_rate
            end = round(end_s * FPS)
            while num_frames < end:
                num_frames += 1
                yield picture


def count_plain(path: Path, mode: str = "bicubic") -> int:
    """Returns the number of frames that the plain reader yields."""
    return sum(1 for _ in plain_frames(path, mode))


def count_ours(path: Path) -> int:
    """Returns the number of frames that our reader yields."""
    return FPS * sum(1 for _ in VideoFile(path).clips())


def plain_features(
    path: Path, network: S3D, device: torch.device, batch_size: int
) -> np.ndarray:
    """Returns the features of a video. All frames are read before the network runs."""
    frames = torch.stack(list(plain_frames(path)))
    num_missing = -len(frames) % FPS  # frames to pad to whole seconds
    frames = functional.pad(frames, (0, 0, 0, 0, 0, 0, 0, num_missing))
    clips = frames.view(-1, FPS, 3, SIZE, SIZE).transpose(1, 2)
    rows = []
    for part in clips.split(batch_size):
        output = network(part.to(device))
        rows.append(output["video_embedding"].float().cpu())
    features = torch.cat(rows).numpy()
    return finish_features(features, l2_normalize=True, dtype=np.dtype(np.float16))


def compare_preprocessing(path: Path, repeats: int) -> list[Figure]:
    """Measures decoding and preprocessing, in frames per second of one core."""
    frames = count_frames(path)
    seconds = time_in_turns(
        repeats,
        lambda _: count_ours(path),
        lambda _: count_plain(path),
        lambda _: count_plain(path, "bilinear"),
        clock=time.process_time,
    )
    ours_s, plain_s, bilinear_s = seconds
    ours = rates(frames, ours_s)
    plain = rates(frames, plain_s)
    bilinear = rates(frames, bilinear_s)
    what = f"decode and preprocess {path.stem}, one core"
    note = "plain: a bilinear filter, other pictures"
    return [
        Figure(what, "frames/s", ours, plain, "plain: the same filter"),
        Figure(what, "frames/s", ours, bilinear, note),
    ]


def compare_whole(args: Namespace, device: torch.device, folder: Path) -> list[Figure]:
    """Measures the network alone and the whole extraction, in seconds of video per second."""
    torch.manual_seed(0)
    network = S3D().eval().to(device)
    encoder = ClipEncoder(S3DEncoder(network), device, args.dtype, args.batch_size)
    videos = find_videos([folder], folder / "features")
    # The network alone, on three batches of the same clip.
    first_video = VideoFile(videos.jobs[0].video)
    clip = torch.from_numpy(next(first_video.clips()))
    encoder.start([clip]).result()  # warms up
    batch = [clip] * encoder.batch_size
    took, _ = timed(lambda: [encoder.start(batch).result() for _ in range(3)])
    alone = 3 * len(batch) / took
    # The whole extraction.
    run = EncoderRun(videos.jobs, encoder)
    took, _ = timed(Extraction([run], num_threads=args.threads).run)
    report = run.report
    whole = report.seconds / took

    def plain() -> list[np.ndarray]:
        exact = args.dtype == "fp32"
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=DTYPES[args.dtype], enabled=not exact),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=not exact),
        ):
            found = []
            for job in videos.jobs:
                found.append(
                    plain_features(job.video, network, device, args.batch_size)
                )
            return found

    took, features = timed(plain)
    plain_whole = report.seconds / took
    smallest = smallest_cosine([job.feature for job in videos.jobs], features)
    where = f"{args.device}, {args.dtype}"
    unit = "s of video/s"
    note = f"smallest cosine of a second's features, ours with plain, {smallest:.4f}"
    return [
        Figure(f"network alone, {where}", unit, [alone]),
        Figure(f"extraction, {where}", unit, [whole], [plain_whole], note),
    ]


def smallest_cosine(paths: Sequence[Path], features: Sequence[np.ndarray]) -> float:
    """Returns the smallest cosine between a second's features in our files and the plain ones.

    The features have length 1, so their dot products are cosines.
    """
    smallest = []
    for path, plain in zip(paths, features, strict=True):
        ours = np.load(path).astype(float)
        cosines = (ours * plain.astype(float)).sum(1)
        smallest.append(cosines.min())
    return float(min(smallest))


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number("--seconds", 3.0, "length of each video", least=0.1)
    parser.number("--repeats", 3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.number("--batch-size", 32, "clips per batch")
    parser.number(
        "--threads", os.cpu_count() or 1, "decoding threads of the whole extraction"
    )
    args = parser.parse_args()
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.mkv" for name in KINDS}
        for name, kind in KINDS.items():
            make_video(paths[name], *kind, args.seconds)
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        figures = []
        for path in paths.values():
            figures += compare_preprocessing(path, args.repeats)
        torch.set_num_threads(num_threads)
        figures += compare_whole(args, device, Path(folder))
    record(figures, args.out)


if __name__ == "__main__":
    run_script(main)
