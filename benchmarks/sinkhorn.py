"""Optimal transport of a training step: ours, batched, and log-domain Sinkhorn block by block.

    python benchmarks/sinkhorn.py    # 1024 clips in sequences of 8; under half a minute

A step of 1024 clips has two kinds of transport problems. The targets of the clip-caption term are
one plan of 1024 x 1024 dot products. The video-paragraph contrast has 128 x 128 plans of 8 x 8
similarities, each with a prompt bucket. The plain side computes one plan at a time. It computes a
new sample of the small plans in each round, and its time is scaled to all of them. Both sides run
50 iterations in float32.
"""

import torch
from torch import Tensor

from mmpt.losses.sinkhorn import bucket_transport, transport
from results import Figure, Options, record, run_script, time_in_turns

ITERATIONS = 50
LENGTH = 8  # clips and captions of a sequence
EPSILON = 0.1


def plain_plan(kernel: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
    """Returns the transport plan of one matrix by Sinkhorn's algorithm in the log domain.

    Args:
        kernel: similarities divided by epsilon, [M, N].
        mu: sums of the rows, [M].
        nu: sums of the columns, [N].
    """
    u = torch.zeros(len(mu))
    v = torch.zeros(len(nu))
    for _ in range(ITERATIONS):
        u = mu.log() - torch.logsumexp(kernel + v, 1)
        v = nu.log() - torch.logsumexp(kernel + u[:, None], 0)
    log_plan = kernel + u[:, None] + v
    return log_plan.exp()


def plain_targets(dots: Tensor) -> Tensor:
    """Returns the plan of the clip-caption targets, whose rows and columns sum to 1."""
    num_clips = len(dots)
    uniform = torch.full((num_clips,), 1 / num_clips)
    plan = plain_plan(dots, uniform, uniform)
    return plan * num_clips


def plain_blocks(blocks: Tensor, rho: Tensor) -> Tensor:
    """Returns the plans of blocks with a prompt bucket, one block after the other.

    The bucket is an additional row and column of the similarity `rho`. It has half of the mass.
    """
    mass = torch.full((LENGTH + 1,), 1 / (2 * LENGTH))
    mass[LENGTH] = 0.5
    plans = []
    for block in blocks:
        padded = rho.repeat(LENGTH + 1, LENGTH + 1)
        padded[:LENGTH, :LENGTH] = block
        plan = plain_plan(padded / EPSILON, mass, mass)
        without_bucket = plan[:LENGTH, :LENGTH]
        plans.append(without_bucket * 2 * LENGTH)
    return torch.stack(plans)


def largest_difference(ours: Tensor, plain: Tensor) -> float:
    """Returns the largest absolute difference of two plans."""
    return float((ours - plain).abs().max())


def measure_targets(num_clips: int, rounds: int) -> Figure:
    """Measures the plan of the clip-caption targets."""
    dots = []
    for number in range(rounds + 1):
        generator = torch.Generator().manual_seed(number)
        normal = torch.randn(num_clips, num_clips, generator=generator)
        dots.append(28 * normal)
    errors: list[float] = []
    ours, plain = time_in_turns(
        rounds,
        lambda number: transport(dots[number], ITERATIONS),
        lambda number: plain_targets(dots[number]),
        check=lambda *plans: errors.append(largest_difference(*plans)),
    )
    note = f"log-domain updates; plans equal to {max(errors):.0e}"
    return Figure(f"transport of {num_clips} x {num_clips}", "s", ours, plain, note)


def measure_blocks(num_clips: int, rounds: int, sample: int) -> Figure:
    """Measures the plans of the video-paragraph contrast."""
    side = num_clips // LENGTH
    num_blocks = side * side
    rho = torch.tensor(0.4)
    errors: list[float] = []
    # The blocks of each round, and the positions of those that the plain side computes.
    draws = []
    for number in range(rounds + 1):
        generator = torch.Generator().manual_seed(number)
        blocks = torch.rand(side, side, LENGTH, LENGTH, generator=generator)
        order = torch.randperm(num_blocks, generator=generator)
        draws.append((blocks, order[:sample]))

    def ours(number: int) -> Tensor:
        blocks, chosen = draws[number]
        plans = bucket_transport(blocks, rho, ITERATIONS, EPSILON)
        return plans.flatten(0, 1)[chosen]

    def plain(number: int) -> Tensor:
        blocks, chosen = draws[number]
        sampled = blocks.flatten(0, 1)[chosen]
        return plain_blocks(sampled, rho)

    taken, plain_taken = time_in_turns(
        rounds,
        ours,
        plain,
        check=lambda *plans: errors.append(largest_difference(*plans)),
    )
    num_sampled = min(sample, num_blocks)
    scaled = [seconds * num_blocks / num_sampled for seconds in plain_taken]
    note = f"block by block, scaled from {num_sampled} blocks; plans equal to {max(errors):.0e}"
    what = f"transport of {side} x {side} blocks of {LENGTH} x {LENGTH} with a bucket"
    return Figure(what, "s", taken, scaled, note)


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number("--clips", 1024, "clips of a batch, a multiple of 8", least=LENGTH)
    parser.number("--sample", 256, "blocks that the plain side computes in each round")
    parser.number("--rounds", 5)
    parser.number("--threads", torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    targets = measure_targets(args.clips, args.rounds)
    blocks = measure_blocks(args.clips, args.rounds, args.sample)
    record([targets, blocks], args.out)


if __name__ == "__main__":
    run_script(main)
