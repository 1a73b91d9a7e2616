"""Norton's loss, forward and backward: ours beside a plain dense implementation of the same
equations, in one run.

    python benchmarks/loss.py    # 256 clips beside dense, ours alone at 1024; under a minute

Times are interleaved rounds in one process, each with a batch of its own. Extra memory is the
growth of the peak resident size over that with the inputs in place, in one step of a fresh process
(Linux); it includes the gradients of the states, which every implementation must make. Shapes are
those of pre-training: 31 text and 18 video positions, hidden 768, 8 to 32 pieces (cut to 29) and 3
to 16 seconds.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mmpt.config import load_config
from mmpt.errors import UserError
from mmpt.losses import MMContraLoss
from plain_parts import Batch, dense
from process_memory import MB, apart, peak_memory
from results import Figure, Options, in_turns, record, run_script, timed

TEXT_POSITIONS, VIDEO_POSITIONS, HIDDEN = 31, 18, 768
RECIPE = load_config(Path(__file__).parent.parent / "projects/retri/norton/how2_pretrain.yaml")
assert RECIPE.loss is not None, "the recipe trains"
NORTON = RECIPE.loss
LossFunction = Callable[[Batch], Tensor]


def draw_batch(num_clips: int, seed: int = 0) -> Batch:
    """Random states and pooled states that ask for gradients, and masks with lengths as the
    samplers draw them.
    """
    generator = torch.Generator().manual_seed(seed)
    # Pieces and [SEP].
    num_text = torch.randint(8, 33, (num_clips, 1), generator=generator).clamp(max=29) + 1
    num_video = torch.randint(3, 17, (num_clips, 1), generator=generator)
    text_place, video_place = torch.arange(TEXT_POSITIONS), torch.arange(VIDEO_POSITIONS)
    text_mask = (text_place >= 1) & (text_place <= num_text)
    video_mask = (video_place >= 1) & (video_place <= num_video)
    video_mask[:, -1] = True

    def states(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    return {
        "pooled_video": states(num_clips, HIDDEN),
        "pooled_text": states(num_clips, HIDDEN),
        "video_outputs": states(num_clips, VIDEO_POSITIONS, HIDDEN),
        "text_outputs": states(num_clips, TEXT_POSITIONS, HIDDEN),
        "video_mask_outputs": video_mask,
        "text_mask_outputs": text_mask,
    }


def ours(batch: Batch) -> Tensor:
    """The loss as it is trained with."""
    return MMContraLoss(NORTON)(**batch).total


VARIANTS: dict[str, LossFunction] = {"ours": ours, "dense": dense}


def step(loss: LossFunction, batch: Batch) -> tuple[float, list[Tensor]]:
    """Run forward and backward once; return the loss and the gradients of all states."""
    for tensor in batch.values():
        tensor.grad = None
    total = loss(batch)
    total.backward()
    gradients = [tensor.grad.flatten() for tensor in batch.values() if tensor.grad is not None]
    return total.item(), gradients


def step_alone(name: str, num_clips: int, threads: int) -> tuple[float, float]:
    """In a fresh process: return (seconds, extra MB) of one step."""
    torch.set_num_threads(threads)
    VARIANTS[name](draw_batch(16)).backward()  # libraries and thread pools load
    batch = draw_batch(num_clips)
    before = peak_memory()
    seconds, _ = timed(lambda: VARIANTS[name](batch).backward())
    return seconds, (peak_memory() - before) / MB


def compare(num_clips: int, rounds: int, threads: int) -> list[Figure]:
    """Measure times, memory and agreement of both variants."""
    batches = [draw_batch(num_clips, seed=number) for number in range(rounds + 1)]
    off: list[tuple[float, float]] = []

    def check(*sides: tuple[float, list[Tensor]]) -> None:
        (value, wanted), (gradient, exact) = zip(*sides, strict=True)
        difference = torch.cat(gradient) - torch.cat(exact)
        off.append((abs(value / wanted - 1), float(difference.norm() / torch.cat(exact).norm())))

    seconds = in_turns(
        rounds,
        lambda number: step(ours, batches[number]),
        lambda number: step(dense, batches[number]),
        check=check,
    )
    worst, worst_gradient = map(max, zip(*off, strict=True))
    agreement = f"dense; losses equal to {worst:.0e}, gradients to {worst_gradient:.0e}"
    memory = [[apart(step_alone, name, num_clips, threads)[1]] for name in VARIANTS]
    both = gradient_mb(num_clips)
    beside = [[extra - both] for (extra,) in memory]
    note = f"which both make ({both:.0f} MB)"
    what = f"loss, {num_clips} clips"
    extra = f"{what}, extra memory"
    return [
        Figure(f"{what}, forward and backward", "s", *seconds, note=agreement),
        Figure(extra, "MB", *memory),
        Figure(f"{extra} beside the gradients of the states", "MB", *beside, note=note),
    ]


def gradient_mb(num_clips: int) -> float:
    """Size of the gradients of all states."""
    return num_clips * (TEXT_POSITIONS + VIDEO_POSITIONS + 2) * HIDDEN * 4 / MB


def main() -> None:
    """Read the options and measure."""
    parser = Options(__doc__)
    parser.number("--clips", 256, "clips of the comparison with dense; 0 skips it", least=0)
    parser.number("--large", 1024, "clips of the run of ours alone; 0 skips it", least=0)
    parser.number("--rounds", 5)
    parser.number("--threads", torch.get_num_threads())
    args = parser.parse_args()
    if not (args.clips or args.large):
        raise UserError("--clips 0 and --large 0 leave nothing to measure; give one of them clips.")
    torch.set_num_threads(args.threads)
    figures = compare(args.clips, args.rounds, args.threads) if args.clips else []
    if args.large:
        seconds, extra = apart(step_alone, "ours", args.large, args.threads)
        note = f"of it {gradient_mb(args.large):.0f} MB are the gradients of the states"
        figures += [
            Figure(f"loss, {args.large} clips, forward and backward", "s", [seconds]),
            Figure(f"loss, {args.large} clips, extra memory", "MB", [extra], note=note),
        ]
    record(figures)


if __name__ == "__main__":
    run_script(main)
