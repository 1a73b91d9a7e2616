"""Optimal transport of a training step: ours, batched, beside the log-domain updates written out
block by block.

    python benchmarks/sinkhorn.py    # 1024 clips in sequences of 8; under half a minute

Clip-caption targets: one plain plan of 1024 x 1024 dot products. Video-paragraph contrast: 128 x
128 plans of 8 x 8 similarities with a bucket. The plain side updates one matrix at a time; of the
blocks it does a sample, another one in each round, and its time is scaled to all. Both take 50
iterations in float32.
"""

import torch
from torch import Tensor

from mmpt.losses.sinkhorn import bucket_transport, transport
from results import Figure, Options, in_turns, record, run_script

ITERATIONS, LENGTH, EPSILON = 50, 8, 0.1


def plain_plan(kernel: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
    """Log-domain Sinkhorn updates of one matrix, as they stand in textbooks."""
    u, v = torch.zeros(len(mu)), torch.zeros(len(nu))
    for _ in range(ITERATIONS):
        u = mu.log() - torch.logsumexp(kernel + v, 1)
        v = nu.log() - torch.logsumexp(kernel + u[:, None], 0)
    return (kernel + u[:, None] + v).exp()


def plain_targets(dots: Tensor) -> Tensor:
    """Plan of clip-caption targets: rows and columns sum to 1."""
    uniform = torch.full((len(dots),), 1 / len(dots))
    return plain_plan(dots, uniform, uniform) * len(dots)


def plain_blocks(blocks: Tensor, rho: Tensor) -> Tensor:
    """Plans with a bucket, one block after the other."""
    mass = torch.full((LENGTH + 1,), 1 / (2 * LENGTH))
    mass[LENGTH] = 0.5
    plans = []
    for block in blocks:
        padded = rho.repeat(LENGTH + 1, LENGTH + 1)
        padded[:LENGTH, :LENGTH] = block
        plans.append(plain_plan(padded / EPSILON, mass, mass)[:LENGTH, :LENGTH] * 2 * LENGTH)
    return torch.stack(plans)


def difference(ours: Tensor, plain: Tensor) -> float:
    """The largest difference of two plans."""
    return float((ours - plain).abs().max())


def measure_targets(num_clips: int, rounds: int) -> Figure:
    """The plan of clip-caption targets."""
    seeds = (torch.Generator().manual_seed(number) for number in range(rounds + 1))
    dots = [28 * torch.randn(num_clips, num_clips, generator=seed) for seed in seeds]
    off: list[float] = []
    ours, plain = in_turns(
        rounds,
        lambda number: transport(dots[number], ITERATIONS),
        lambda number: plain_targets(dots[number]),
        check=lambda *plans: off.append(difference(*plans)),
    )
    note = f"log-domain updates; plans equal to {max(off):.0e}"
    return Figure(f"transport of {num_clips} x {num_clips}", "s", ours, plain, note)


def measure_blocks(num_clips: int, rounds: int, sample: int) -> Figure:
    """The plans of video-paragraph contrast."""
    side, rho = num_clips // LENGTH, torch.tensor(0.4)
    off: list[float] = []
    draws = []
    for number in range(rounds + 1):
        generator = torch.Generator().manual_seed(number)
        blocks = torch.rand(side, side, LENGTH, LENGTH, generator=generator)
        draws.append((blocks, torch.randperm(side * side, generator=generator)[:sample]))

    def ours(number: int) -> Tensor:
        blocks, chosen = draws[number]
        return bucket_transport(blocks, rho, ITERATIONS, EPSILON).flatten(0, 1)[chosen]

    def plain(number: int) -> Tensor:
        blocks, chosen = draws[number]
        return plain_blocks(blocks.flatten(0, 1)[chosen], rho)

    taken, plain_taken = in_turns(
        rounds, ours, plain, check=lambda *plans: off.append(difference(*plans))
    )
    done = min(sample, side * side)
    note = f"block by block, scaled from {done} blocks; plans equal to {max(off):.0e}"
    what = f"transport of {side} x {side} blocks of {LENGTH} x {LENGTH} with a bucket"
    scaled = [seconds * side * side / done for seconds in plain_taken]
    return Figure(what, "s", taken, scaled, note)


def main() -> None:
    """Read the options and measure."""
    parser = Options(__doc__)
    parser.number("--clips", 1024, "clips of a batch, a multiple of 8", least=LENGTH)
    parser.number("--sample", 256, "blocks that the plain side does in each round")
    parser.number("--rounds", 5)
    parser.number("--threads", torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    targets = measure_targets(args.clips, args.rounds)
    record([targets, measure_blocks(args.clips, args.rounds, args.sample)])


if __name__ == "__main__":
    run_script(main)
