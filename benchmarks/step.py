"""A training step of Norton's recipe: ours, and padded towers with eager attention and dense loss.

    python benchmarks/step.py    # about 100 seconds on 2 cores
    # the recipe's batch on a GPU:
    python benchmarks/step.py --models base --videos 64 --device cuda --dtype bfloat16

A step is forward, loss and backward, and trains the LayerNorm parameters. The batches come from a
generated corpus, and the aligner draws their lengths from the ranges of how2_pretrain.yaml. Dropout
is off, so that both sides must give the same loss, which is checked.

Both sides take turns in one process. Each size of the model gets a new process, because the plain
side of the small size would be faster with memory that the allocator keeps from the large one. On a
GPU, the plain side uses fp16 if ours uses bf16, and the peak memory of each step is recorded, too.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertConfig

from loader import generate, training_set
from loss import NORTON
from mmpt.cli.main import choose_device
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.tasks.task import freeze_all_but_layernorm
from plain_parts import attend_eagerly, dense
from process_memory import run_in_new_process
from results import Figure, Options, record, run_script

DEMO_BERT = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}
MODELS = {
    "base": ({}, 6),
    "demo": (DEMO_BERT, 2),
}
"""For each size, the changes to bert-base-uncased and the number of layers of the video tower."""
DTYPES = ("float32", "bfloat16", "float16")
INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


def batches(folder: Path, num_videos: int, count: int) -> list[dict[str, torch.Tensor]]:
    """Returns `count` batches of `num_videos` x 16 clips. The clips of all videos are one axis."""
    config = generate(folder, num_videos * count)
    data = training_set(config.replace(num_video_per_batch=num_videos))
    found = []
    for number in range(count):
        item = data.item(number % len(data), epoch=number)
        batch = {name: item[name] for name in INPUTS}
        batch["vfeats"] = batch["vfeats"].float()
        found.append(batch)
    return found


def towers(
    size: str,
    *,
    packed: bool,
    device: torch.device,
    dtype: torch.dtype,
    dropout: float = 0.0,
    chunk: int | str = "auto",
) -> MMFusionSeparate:
    """Returns two towers with weights from a fixed seed. Without packing, they attend eagerly.

    Args:
        chunk: clips whose activations are kept at once, as in `model.checkpoint_activations`.
    """
    changes, video_layers = MODELS[size]
    config = BertConfig(
        **changes, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    torch.manual_seed(0)
    model = MMFusionSeparate(
        config,
        num_hidden_video_layers=video_layers,
        max_video_len=16,
        packed=packed,
        checkpoint_activations=chunk,
    )
    if not packed:
        attend_eagerly(model)
    freeze_all_but_layernorm(model)
    return model.train().to(device, dtype)


@dataclass(frozen=True)
class Step:
    """The loss of a training step, its duration, and its peak memory on a GPU (0 on a CPU)."""

    loss: float
    seconds: float
    peak_gb: float


def step(
    model: MMFusionSeparate,
    loss: Callable[..., torch.Tensor],
    batch: dict[str, torch.Tensor],
) -> Step:
    """Runs and measures one step.

    Args:
        loss: function of the outputs of the model.
    """
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
    seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated(first.device) if on_gpu else 0
    return Step(value, seconds, peak / 1e9)


def real_share(
    batch: dict[str, torch.Tensor], video_layers: int, text_layers: int
) -> float:
    """Returns the share of real tokens among all tokens, summed over the layers of both towers.

    The video tower adds two tokens, [CLS] and [SEP]. The text tower leaves out the first slot of
    a caption.
    """
    num_clips, num_seconds = batch["vmasks"].shape
    _, num_slots = batch["cmasks"].shape
    real_video = batch["vmasks"].sum() + 2 * num_clips
    real_text = batch["cmasks"].sum() - num_clips
    real = video_layers * real_video + text_layers * real_text
    slots = video_layers * (num_seconds + 2) + text_layers * (num_slots - 1)
    return float(real / (slots * num_clips))


def dense_float(output: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns the dense loss in float32, computed on the device of the outputs."""
    upcast = {}
    for name, value in output.items():
        if value.is_floating_point():
            value = value.float()
        upcast[name] = value
    with upcast["pooled_video"].device:
        return dense(upcast)


def compare(
    size: str, num_videos: int, rounds: int, device: torch.device, dtype: torch.dtype
) -> list[Figure]:
    """Measures both sides with a model of this size."""
    norton = MMContraLoss(NORTON)
    exact = dtype == torch.float32
    plain_dtype = torch.float32 if exact or device.type == "cpu" else torch.float16
    ours = towers(size, packed=True, device=device, dtype=dtype)
    plain = towers(size, packed=False, device=device, dtype=plain_dtype)
    with tempfile.TemporaryDirectory() as folder:
        drawn = batches(Path(folder), num_videos, rounds + 1)
    tolerance = 1e-4 if exact else 2e-2
    our_steps, plain_steps = [], []
    for batch in drawn:
        our_steps.append(step(ours, lambda output: norton(**output).total, batch))
        plain_steps.append(step(plain, dense_float, batch))
        value = our_steps[-1].loss
        wanted = plain_steps[-1].loss
        assert abs(value - wanted) < tolerance * abs(wanted), (value, wanted)
    del our_steps[0], plain_steps[0]  # the first round warms up
    _, video_layers = MODELS[size]
    text_layers = ours.text_encoder.config.num_hidden_layers
    shares = [real_share(batch, video_layers, text_layers) for batch in drawn]
    real_percent = 100 * statistics.mean(shares)
    what = f"training step, {size} size, {num_videos} videos x 16 clips, {device.type}, {dtype}"
    note = (
        f"losses equal to {tolerance:g}; {real_percent:.0f} % of the padded token-layers "
        "are real"
    )
    our_seconds = [each.seconds for each in our_steps]
    plain_seconds = [each.seconds for each in plain_steps]
    figures = [Figure(what, "s", our_seconds, plain_seconds, note)]
    if device.type == "cuda":
        note = f"plain in {plain_dtype}; weights of both included"
        our_peaks = [each.peak_gb for each in our_steps]
        plain_peaks = [each.peak_gb for each in plain_steps]
        figures.append(Figure(f"{what}: memory", "GB", our_peaks, plain_peaks, note))
    return figures


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.add_argument(
        "--models", choices=sorted(MODELS), nargs="+", default=["base", "demo"]
    )
    parser.number(
        "--videos", None, "videos in a batch, of 16 clips each (base: 8, demo: 16)"
    )
    parser.number("--rounds", 3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="ours")
    args = parser.parse_args()
    device = choose_device(args.device)
    dtype = getattr(torch, args.dtype)
    figures = []
    for size in args.models:
        videos = args.videos or {"base": 8, "demo": 16}[size]
        figures += run_in_new_process(compare, size, videos, args.rounds, device, dtype)
    record(figures, args.out)


if __name__ == "__main__":
    run_script(main)
