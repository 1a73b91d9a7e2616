"""Memory of a training step: activations recomputed in the backward pass (ours), or all kept.

    python benchmarks/memory.py                              # demo size, below a minute on 2 cores
    python benchmarks/memory.py --model base --clips 128     # several minutes on 2 cores

A step is forward, loss and backward with dropout, and trains the LayerNorm parameters. The lengths
of clips are drawn from the ranges of how2_pretrain.yaml. Extra memory is the growth of the peak
resident memory during the step, when the model and the batch are in memory already. Each variant
runs in a fresh process (Linux). On a CPU, the allocator keeps a part of the memory that is freed.
"""

import torch
from transformers import BertConfig

from loss import NORTON
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.tasks.task import freeze_all_but_layernorm
from process_memory import MB, peak_memory, run_in_new_process
from results import Figure, Options, record, run_script
from step import MODELS

SECONDS, SLOTS = 16, 32


def make_batch(num_clips: int) -> dict[str, torch.Tensor]:
    """Returns random features of 3 to 16 seconds and captions of 8 to 29 word pieces."""
    generator = torch.Generator().manual_seed(0)
    seconds = torch.randint(3, SECONDS + 1, (num_clips, 1), generator=generator)
    drawn = torch.randint(8, 33, (num_clips, 1), generator=generator)
    num_tokens = drawn.clamp(max=SLOTS - 3) + 3  # with the special tokens
    return {
        "caps": torch.randint(5, 1000, (num_clips, SLOTS), generator=generator),
        "cmasks": torch.arange(SLOTS) < num_tokens,
        "vfeats": torch.randn(num_clips, SECONDS, 512, generator=generator),
        "vmasks": torch.arange(SECONDS) < seconds,
    }


def measure(size: str, num_clips: int, clips_per_chunk: int, threads: int) -> float:
    """Returns the extra memory of a step in MB. To be called in a fresh process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    changes, video_layers = MODELS[size]
    model = MMFusionSeparate(
        BertConfig(**changes),
        num_hidden_video_layers=video_layers,
        max_video_len=SECONDS,
        packed=True,
        checkpoint_activations=clips_per_chunk,
    )
    freeze_all_but_layernorm(model)
    model.train()
    loss = MMContraLoss(NORTON)

    def step(batch: dict[str, torch.Tensor]) -> None:
        output = model(**batch)
        total = loss(**{**batch, **output}).total
        total.backward()

    step(make_batch(16))  # loads libraries
    batch = make_batch(num_clips)
    before = peak_memory()
    step(batch)
    return (peak_memory() - before) / MB


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), default="demo")
    parser.number("--clips", 1024, "clips of a batch")
    parser.number(
        "--chunk", 64, "clips whose activations are computed at the same time"
    )
    parser.number("--rounds", 1)
    parser.number("--threads", torch.get_num_threads())
    args = parser.parse_args()
    sides = []
    for chunk in (args.chunk, False):  # False keeps all activations
        values = []
        for _ in range(args.rounds):
            extra = run_in_new_process(
                measure, args.model, args.clips, chunk, args.threads
            )
            values.append(extra)
        sides.append(values)
    what = (
        f"step of {args.clips} clips, {args.model} size, activations again in chunks of "
        f"{args.chunk}, compared with all kept"
    )
    figure = Figure(what, "MB", *sides, note="growth of the process's peak")
    record([figure], args.out)


if __name__ == "__main__":
    run_script(main)
