"""Speed of video encoders with random weights, in seconds of video per second.

S3D is the project's own network. CLIP's vision model is the one that `mmpt extract --encoder
hf:<model>` loads from the hub, with one frame per second of video.
"""

import importlib.util
import os
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from gpu_day.part import Report
from gpu_day.refresh import device_of
from gpu_day.training_step import milliseconds
from mmpt.media.clip_encoder import DTYPES, ClipEncoder, open_network
from mmpt.media.encoders import S3DEncoder

VIT_L_14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
SMALL_VIT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 56,
}


def measure_encoders(report: Report) -> None:
    """Records the speed of S3D and CLIP ViT-L/14."""
    report.add("extract: weights", "random")
    for dtype in ("fp32",) if report.rehearse else ("fp16", "bf16", "fp32"):
        with report.attempt(f"S3D {dtype}"):
            measure_s3d(report, dtype)
    with report.attempt("CLIP"):
        measure_clip(report)
    if not importlib.util.find_spec("av"):
        report.add("extract: decoding", "not measured, as the package av is missing")
        return
    if not report.rehearse:
        with report.attempt("decoding"):
            measure_extraction(report)


def rate(
    work: Callable[[], Any], amount: float, device: torch.device, rounds: int
) -> float:
    """Returns `amount` per second of `work()`, from the fastest of some rounds after a warm-up."""
    times = [milliseconds(work, device) for _ in range(rounds + 1)]
    return 1000 * amount / min(times[1:])


@torch.inference_mode()
def measure_s3d(report: Report, dtype: str) -> None:
    """Records the speed of S3D alone, and of the encoder, which also copies pixels to the GPU."""
    device = device_of(report)
    batch_size, rounds = (1, 1) if report.rehearse else (64, 3)
    network, _ = open_network(Path(), random_weights=True)
    encoder = ClipEncoder(S3DEncoder(network), device, dtype, batch_size)
    shape = (30, 224, 224, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    clips = [torch.from_numpy(pixels)] * encoder.batch_size

    def encode():
        return [each.result() for each in (encoder.start(clips), encoder.start(clips))]

    seconds_of_video = 2 * len(clips)
    report.add(
        f"extract, S3D {dtype}, with copies: s of video/s",
        rate(encode, seconds_of_video, device, rounds),
    )
    if report.rehearse:
        return
    inputs = torch.rand(batch_size, 3, 30, 224, 224, device=device)
    exact = dtype == "fp32"
    with torch.autocast("cuda", DTYPES[dtype], enabled=not exact):
        alone = rate(lambda: network(inputs), batch_size, device, rounds)
    report.add(f"extract, S3D {dtype}, network alone: s of video/s", alone)


@torch.inference_mode()
def measure_clip(report: Report) -> None:
    """Records the speed of CLIP ViT-L/14 in float16, without decoding and resizing."""
    device = device_of(report)
    sizes, batch_size, dtype = VIT_L_14, 256, torch.float16
    if report.rehearse:
        sizes, batch_size, dtype = SMALL_VIT, 2, torch.float32
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes))
    model = model.eval().to(device, dtype)
    frames = torch.rand(batch_size, 3, 224, 224).to(device, dtype)
    speed = rate(lambda: model(frames), batch_size, device, rounds=5)
    report.add("extract, CLIP ViT-L/14, network alone, 1 frame/s: s of video/s", speed)


def measure_extraction(report: Report) -> None:
    """Records the speed of whole extractions, decoding included, and of a plain loop."""
    from extract import KINDS, compare_whole, make_video  # deferred: needs av

    args = Namespace(
        device="cuda", dtype="fp16", batch_size=64, threads=os.cpu_count() or 1
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in KINDS.items():
            make_video(Path(folder) / f"{name}.mkv", *kind, 10.0)
        for figure in compare_whole(args, device_of(report), Path(folder)):
            report.add(f"extract, {figure.what}: {figure.unit}", figure.ours[0])
            if figure.plain:
                report.add(
                    f"extract, plain, {figure.what}: {figure.unit}", figure.plain[0]
                )
