"""The embedding pass of a refresh: ours, and padded towers that embed one video at a time.

    python benchmarks/embed.py    # demo size; half a minute on 2 cores
    python benchmarks/embed.py --model base --videos 32 --rounds 3    # BERT-base; a few minutes
    # on a GPU:
    python benchmarks/embed.py --model base --videos 4096 --device cuda --dtype float16 --workers 8

Our side is the pass of the task: it samples clips, loads batches, runs the towers without padding,
and writes float16 rows to a file that survives a crash. The plain side samples the same clips in
the same process and runs padded towers with eager attention. Both sides embed all videos of a
generated corpus in turns, and their vectors must agree.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from loader import C, generate
from mmpt.cli.main import choose_device
from mmpt.config import ModelConfig, RetrievalConfig, RunConfig
from mmpt.tasks import VideoRetriTask
from mmpt.utils.distributed import World
from results import Figure, Options, rates, record, run_script, time_in_turns
from step import DTYPES, INPUTS, MODELS, towers


def make_task(folder: Path, num_videos: int, workers: int) -> VideoRetriTask:
    """Generates a corpus and returns the task that embeds it."""
    options = {
        "checkpoint": {"save_dir": f"{folder}/run"},
        "dataset": {"num_workers": workers},
    }
    config = RunConfig(
        dataset=generate(folder, num_videos),
        model=ModelConfig(),
        retrieval=RetrievalConfig(),
        fairseq=options,
    )
    return VideoRetriTask(config)


def embed_ours(task: VideoRetriTask, model: nn.Module, epoch: int) -> np.ndarray:
    """Returns the vectors of the task's embedding pass, float16 [N, D]."""
    vectors = task.embed_videos(model, epoch, World())
    assert vectors is not None
    return vectors


@torch.no_grad()
def embed_plainly(task: VideoRetriTask, model: nn.Module, epoch: int) -> np.ndarray:
    """Returns the same vectors, computed one video at a time, float32 [N, D].

    The vector of a video is the mean of its clips' pooled video and text states.
    """
    first = next(model.parameters())
    data = task.embedding_dataset
    rows = []
    model.eval()
    for number in range(len(data)):
        item = data.item(number, epoch)
        batch = {name: item[name].to(first.device) for name in INPUTS}
        batch["vfeats"] = batch["vfeats"].to(first.dtype)
        output = model(**batch)
        both = output["pooled_video"].float() + output["pooled_text"].float()
        clip_vectors = both / 2
        rows.append(clip_vectors.mean(dim=0).cpu())
    return torch.stack(rows).numpy()


def vector_check(
    dtype: torch.dtype, errors: list[float]
) -> Callable[[np.ndarray, np.ndarray], None]:
    """Returns a function that compares two sets of vectors and appends the error to `errors`."""
    tolerance = 1e-3 if dtype == torch.float32 else 2e-2

    def check(found: np.ndarray, wanted: np.ndarray) -> None:
        largest = np.abs(wanted).max()
        error = np.abs(found - wanted).max() / largest
        errors.append(float(error))
        assert error < tolerance, errors

    return check


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), default="demo")
    parser.number("--videos", 256, "videos of the corpus")
    parser.number("--rounds", 5)
    parser.number("--workers", 0, "loader processes of our side", least=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    args = parser.parse_args()
    device = choose_device(args.device)
    dtype = getattr(torch, args.dtype)
    packed = towers(args.model, packed=True, device=device, dtype=dtype)
    padded = towers(args.model, packed=False, device=device, dtype=dtype)
    errors: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(Path(folder), args.videos, args.workers)
        ours, plain = time_in_turns(
            args.rounds,
            lambda epoch: embed_ours(task, packed, epoch),
            lambda epoch: embed_plainly(task, padded, epoch),
            check=vector_check(dtype, errors),
        )
    size = f"{args.videos:,} videos x {C} clips"
    what = f"embedding pass, {args.model}, {size}, {args.dtype}, {args.device}"
    agreement = f"vectors equal to {max(errors):.0e} of the largest (float16 rows)"
    figure = Figure(
        what,
        "videos/s",
        ours=rates(args.videos, ours),
        plain=rates(args.videos, plain),
        note=f"{agreement}; plain: padded, a video at a time",
    )
    record([figure], args.out)


if __name__ == "__main__":
    run_script(main)
