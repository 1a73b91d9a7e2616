"""Optimal transport of a training step: ours, batched, beside the log-domain updates written out
block by block.

    python benchmarks/sinkhorn.py             # a batch of 1024 clips, in sequences of 8; under half
    a minute

Clip-caption targets: one plain plan of 1024 x 1024 dot products. Video-paragraph contrast: 128 x
128 plans of 8 x 8 similarities with a bucket. The plain side updates one matrix at a time; of the
blocks it does a sample, another one in each round, and its time is scaled to all. Both take 50
iterations in float32.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from mmpt.losses.sinkhorn import bucket_transport, transport
from results import Figure, at_least, record, run_script, timed

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


def measure_targets(num_clips: int, rounds: int) -> Figure:
    """The plan of clip-caption targets."""
    ours, plain, off = [], [], 0.0
    for number in range(rounds + 1):  # the first round warms up
        dots = 28 * torch.randn(
            num_clips, num_clips, generator=torch.Generator().manual_seed(number)
        )
        seconds, plan = timed(transport, dots, ITERATIONS)
        plain_seconds, expected = timed(plain_targets, dots)
        off = max(off, float((plan - expected).abs().max()))
        ours.append(seconds)
        plain.append(plain_seconds)
    note = f"log-domain updates; plans equal to {off:.0e}"
    return Figure(f"transport of {num_clips} x {num_clips}", "s", ours[1:], plain[1:], note)


def measure_blocks(num_clips: int, rounds: int, sample: int) -> Figure:
    """The plans of video-paragraph contrast."""
    ours, plain, off = [], [], 0.0
    side = num_clips // LENGTH
    for number in range(rounds + 1):
        generator = torch.Generator().manual_seed(number)
        blocks = torch.rand(side, side, LENGTH, LENGTH, generator=generator)
        rho = torch.tensor(0.4)
        chosen = torch.randperm(side * side, generator=generator)[:sample]
        seconds, plans = timed(bucket_transport, blocks, rho, ITERATIONS, EPSILON)
        plain_seconds, expected = timed(plain_blocks, blocks.flatten(0, 1)[chosen], rho)
        off = max(off, float((plans.flatten(0, 1)[chosen] - expected).abs().max()))
        ours.append(seconds)
        plain.append(plain_seconds * side * side / len(chosen))
    note = (
        f"block by block, scaled from {min(sample, side * side)} blocks; plans equal to {off:.0e}"
    )
    what = f"transport of {side} x {side} blocks of {LENGTH} x {LENGTH} with a bucket"
    return Figure(what, "s", ours[1:], plain[1:], note)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clips", type=at_least(LENGTH), default=1024, help="clips of a batch, a multiple of 8"
    )
    parser.add_argument(
        "--sample",
        type=at_least(1),
        default=256,
        help="blocks that the plain side does in each round",
    )
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--threads", type=at_least(1), default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    record(
        [
            measure_targets(args.clips, args.rounds),
            measure_blocks(args.clips, args.rounds, args.sample),
        ]
    )


if __name__ == "__main__":
    run_script(main)
