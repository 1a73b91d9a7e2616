"""Memory of a training step: activations computed again in backward beside all of them kept, in one
run.

    python benchmarks/memory.py                              # demo size, below a minute on 2 cores
    python benchmarks/memory.py --model base --clips 128     # several minutes on 2 cores

A step is forward, loss and backward with LayerNorm parameters trained and dropout on, on clips
whose lengths are drawn with the ranges of how2_pretrain.yaml. Extra memory is the growth of the
peak resident size over that with model and batch in place, each variant in a fresh process (Linux);
on a CPU the allocator keeps part of what is freed.
"""

import torch
from transformers import BertConfig

from loss import NORTON
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.models.freezing import freeze_all_but_layernorm
from process_memory import MB, apart, peak_memory
from results import Figure, Options, record, run_script
from step import MODELS

SECONDS, SLOTS = 16, 32


def draw(num_clips: int) -> dict[str, torch.Tensor]:
    """Random features and word pieces: 3 to 16 seconds, 8 to 29 pieces."""
    generator = torch.Generator().manual_seed(0)
    seconds = torch.randint(3, SECONDS + 1, (num_clips, 1), generator=generator)
    pieces = torch.randint(8, 33, (num_clips, 1), generator=generator).clamp(max=SLOTS - 3)
    return {
        "caps": torch.randint(5, 1000, (num_clips, SLOTS), generator=generator),
        "cmasks": torch.arange(SLOTS) < pieces + 3,
        "vfeats": torch.randn(num_clips, SECONDS, 512, generator=generator),
        "vmasks": torch.arange(SECONDS) < seconds,
    }


def measure(size: str, num_clips: int, clips_per_chunk: int, threads: int) -> float:
    """Returns the extra MB of a step in a fresh process, after a small one to load libraries."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    changes, video_layers = MODELS[size]
    sizes = {"num_hidden_video_layers": video_layers, "max_video_len": SECONDS}
    model = MMFusionSeparate(
        BertConfig(**changes), **sizes, packed=True, checkpoint_activations=clips_per_chunk
    )
    freeze_all_but_layernorm(model)
    model.train()
    loss = MMContraLoss(NORTON)

    def step(batch: dict[str, torch.Tensor]) -> None:
        loss(**{**batch, **model(**batch)}).total.backward()

    step(draw(16))
    batch = draw(num_clips)
    before = peak_memory()
    step(batch)
    return (peak_memory() - before) / MB


def main() -> None:
    """Read the options, measure, record."""
    parser = Options(__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), default="demo")
    parser.number("--clips", 1024)
    parser.number("--chunk", 64, "clips whose activations are made at once")
    parser.number("--rounds", 1)
    parser.number("--threads", torch.get_num_threads())
    args = parser.parse_args()
    ours, plain = (
        [apart(measure, args.model, args.clips, chunk, args.threads) for _ in range(args.rounds)]
        for chunk in (args.chunk, False)
    )
    what = (
        f"step of {args.clips} clips, {args.model} size, activations again in chunks of "
        f"{args.chunk}, beside all kept"
    )
    record([Figure(what, "MB", ours, plain, "growth of the process's peak")])


if __name__ == "__main__":
    run_script(main)
