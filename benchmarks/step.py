"""A training step of Norton's recipe: ours beside padded towers with eager attention and the dense
loss, in one run.

    python benchmarks/step.py    # about 100 seconds on 2 cores
    # the recipe's batch on a GPU:
    python benchmarks/step.py --models base --videos 64 --device cuda --dtype bfloat16

A step is forward, loss and backward with LayerNorm parameters trained, on batches of a generated
corpus whose lengths are drawn by the aligner with the ranges of how2_pretrain.yaml. Rounds are
interleaved in one process, for each size a fresh one (what large tensors leave in the allocator
quickens the plain side of the small size). Dropout is off: both sides must give the same loss,
which is checked. On a GPU the plain side is fp16 when ours is bf16, and the most memory that each
step holds is recorded too.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import BertConfig

from loader import generate, training_set
from loss import NORTON
from mmpt.cli.app import choose_device
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.models.freezing import freeze_all_but_layernorm
from plain_parts import attend_eagerly, dense
from process_memory import apart
from results import Figure, Options, record, run_script

DEMO_BERT = {"hidden_size": 128, "num_hidden_layers": 2}
DEMO_BERT |= {"num_attention_heads": 4, "intermediate_size": 256}
MODELS = {
    "base": ({}, 6),
    "demo": (DEMO_BERT, 2),
}
"""Changes to bert-base-uncased and the layers of the video tower."""
DTYPES = ("float32", "bfloat16", "float16")
INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


def batches(folder: Path, num_videos: int, count: int) -> list[dict[str, torch.Tensor]]:
    """Return `count` batches of `num_videos` x 16 clips."""
    config = generate(folder, num_videos * count)
    data = training_set(config.replace(num_video_per_batch=num_videos))
    items = [data.item(number % len(data), epoch=number) for number in range(count)]
    drawn = [{name: item[name] for name in INPUTS} for item in items]
    return [{**batch, "vfeats": batch["vfeats"].float()} for batch in drawn]


def towers(
    size: str, *, packed: bool, device: torch.device, dtype: torch.dtype
) -> MMFusionSeparate:
    """Two towers with weights from one seed; the padded ones attend eagerly."""
    changes, video_layers = MODELS[size]
    config = BertConfig(**changes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    torch.manual_seed(0)
    model = MMFusionSeparate(
        config, num_hidden_video_layers=video_layers, max_video_len=16, packed=packed
    )
    if not packed:
        attend_eagerly(model)
    freeze_all_but_layernorm(model)
    return model.train().to(device, dtype)


def step(
    model: MMFusionSeparate, loss: Callable[..., torch.Tensor], batch: dict[str, torch.Tensor]
) -> tuple[float, float, float]:
    """Run one step; return its loss, its seconds, and the most GB that it held on a GPU."""
    first = next(model.parameters())
    moved = {name: value.to(first.device) for name, value in batch.items()}
    moved["vfeats"] = moved["vfeats"].to(first.dtype)
    model.zero_grad(set_to_none=True)
    on_gpu = first.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(first.device)
        torch.cuda.reset_peak_memory_stats(first.device)
    begin = time.perf_counter()
    total = loss(model(**moved))
    total.backward()
    value = total.item()
    if on_gpu:
        torch.cuda.synchronize(first.device)
    took = time.perf_counter() - begin
    held = torch.cuda.max_memory_allocated(first.device) if on_gpu else 0
    return value, took, held / 1e9


def real_share(batch: dict[str, torch.Tensor], video_layers: int, text_layers: int) -> float:
    """Return the share of token-layers that are not padding."""
    num_clips, seconds = batch["vmasks"].shape
    real = video_layers * (batch["vmasks"].sum() + 2 * num_clips)
    real = real + text_layers * (batch["cmasks"].sum() - num_clips)
    slots = video_layers * (seconds + 2) + text_layers * (batch["cmasks"].shape[1] - 1)
    return float(real / (slots * num_clips))


def dense_float(output: dict[str, torch.Tensor]) -> torch.Tensor:
    """The dense loss in float32, on the device of the states."""
    widened = {
        name: value.float() if value.is_floating_point() else value
        for name, value in output.items()
    }
    with widened["pooled_video"].device:
        return dense(widened)


def compare(
    size: str, num_videos: int, rounds: int, device: torch.device, dtype: torch.dtype
) -> list[Figure]:
    """Measure a model of that size."""
    norton, exact = MMContraLoss(NORTON), dtype == torch.float32
    plain_dtype = torch.float32 if exact or device.type == "cpu" else torch.float16
    ours = towers(size, packed=True, device=device, dtype=dtype)
    plain = towers(size, packed=False, device=device, dtype=plain_dtype)
    with tempfile.TemporaryDirectory() as folder:
        drawn = batches(Path(folder), num_videos, rounds + 1)
    taken = []
    tolerance = 1e-4 if exact else 2e-2
    for batch in drawn:
        taken.append(
            (
                step(ours, lambda output: norton(**output).total, batch),
                step(plain, dense_float, batch),
            )
        )
        (value, *_), (wanted, *_) = taken[-1]
        assert abs(value - wanted) < tolerance * abs(wanted), (value, wanted)
    sides = list(zip(*taken[1:], strict=True))  # the first round warms up
    seconds, peaks = ([[run[place] for run in runs] for runs in sides] for place in (1, 2))
    text_layers = ours.text_encoder.config.num_hidden_layers
    share = statistics.mean(real_share(batch, MODELS[size][1], text_layers) for batch in drawn)
    what = f"training step, {size} size, {num_videos} videos x 16 clips, {device.type}, {dtype}"
    note = f"losses equal to {tolerance:g}; {100 * share:.0f} % of the padded token-layers are real"
    figures = [Figure(what, "s", *seconds, note=note)]
    if device.type == "cuda":
        note = f"plain in {plain_dtype}; weights of both included"
        figures.append(Figure(f"{what}: memory", "GB", *peaks, note=note))
    return figures


def main() -> None:
    """Read the options, measure, record."""
    parser = Options(__doc__)
    parser.add_argument("--models", choices=sorted(MODELS), nargs="+", default=["base", "demo"])
    parser.number("--videos", None, "videos in a batch, of 16 clips each (base: 8, demo: 16)")
    parser.number("--rounds", 3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="ours")
    args = parser.parse_args()
    device, dtype = choose_device(args.device), getattr(torch, args.dtype)
    sizes = {size: args.videos or {"base": 8, "demo": 16}[size] for size in args.models}
    runs = [
        apart(compare, size, videos, args.rounds, device, dtype) for size, videos in sizes.items()
    ]
    record([figure for figures in runs for figure in figures])


if __name__ == "__main__":
    run_script(main)
