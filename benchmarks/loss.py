"""Norton's loss, forward and backward: ours, and a dense implementation of the same equations.

    python benchmarks/loss.py    # both at 256 clips, ours alone at 1024; under a minute

Both sides take turns in one process, with a new batch in each round. Extra memory is the growth of
the peak resident memory during one step in a fresh process (Linux), when the inputs are in memory
already. It includes the gradients of the inputs, which every implementation must compute.

The shapes are the same as in pre-training: 31 text and 18 video positions, hidden size 768,
captions of 8 to 32 word pieces (cut to 29) and clips of 3 to 16 seconds.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mmpt.config import load_config
from mmpt.errors import UserError
from mmpt.losses import MMContraLoss
from plain_parts import Batch, dense
from process_memory import MB, peak_memory, run_in_new_process
from results import ROOT, Figure, Options, record, run_script, time_in_turns, timed

TEXT_POSITIONS, VIDEO_POSITIONS, HIDDEN = 31, 18, 768
RECIPE = load_config(ROOT / "projects/retri/norton/how2_pretrain.yaml")
assert RECIPE.loss is not None, "the recipe trains"
NORTON = RECIPE.loss
LossFunction = Callable[[Batch], Tensor]


def draw_batch(num_clips: int, seed: int = 0) -> Batch:
    """Returns random inputs of the loss, which require gradients.

    The masks have lengths from the ranges of the samplers.
    """
    generator = torch.Generator().manual_seed(seed)
    num_pieces = torch.randint(8, 33, (num_clips, 1), generator=generator)
    num_text = num_pieces.clamp(max=29) + 1  # with [SEP]
    num_video = torch.randint(3, 17, (num_clips, 1), generator=generator)
    text_place = torch.arange(TEXT_POSITIONS)
    video_place = torch.arange(VIDEO_POSITIONS)
    text_mask = (text_place >= 1) & (text_place <= num_text)
    video_mask = (video_place >= 1) & (video_place <= num_video)
    video_mask[:, -1] = True

    def states(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator)
        return drawn.requires_grad_()

    return {
        "pooled_video": states(num_clips, HIDDEN),
        "pooled_text": states(num_clips, HIDDEN),
        "video_outputs": states(num_clips, VIDEO_POSITIONS, HIDDEN),
        "text_outputs": states(num_clips, TEXT_POSITIONS, HIDDEN),
        "video_mask_outputs": video_mask,
        "text_mask_outputs": text_mask,
    }


def ours(batch: Batch) -> Tensor:
    """Returns the loss as training computes it."""
    return MMContraLoss(NORTON)(**batch).total


VARIANTS: dict[str, LossFunction] = {"ours": ours, "dense": dense}


def step(loss: LossFunction, batch: Batch) -> tuple[float, list[Tensor]]:
    """Runs forward and backward once; returns the loss and the gradients of all inputs."""
    for tensor in batch.values():
        tensor.grad = None
    total = loss(batch)
    total.backward()
    gradients = []
    for tensor in batch.values():
        if tensor.grad is not None:
            gradients.append(tensor.grad.flatten())
    return total.item(), gradients


def step_alone(name: str, num_clips: int, threads: int) -> tuple[float, float]:
    """Returns the seconds and the extra MB of one step. To be called in a fresh process."""
    torch.set_num_threads(threads)
    VARIANTS[name](draw_batch(16)).backward()  # loads libraries and starts threads
    batch = draw_batch(num_clips)
    before = peak_memory()
    seconds, _ = timed(lambda: VARIANTS[name](batch).backward())
    extra = peak_memory() - before
    return seconds, extra / MB


def compare(num_clips: int, rounds: int, threads: int) -> list[Figure]:
    """Returns time and memory of both variants, and how closely they agree."""
    batches = [draw_batch(num_clips, seed=number) for number in range(rounds + 1)]
    loss_errors: list[float] = []
    gradient_errors: list[float] = []

    def check(
        found: tuple[float, list[Tensor]], wanted: tuple[float, list[Tensor]]
    ) -> None:
        loss, gradients = found
        exact_loss, exact_gradients = wanted
        loss_errors.append(abs(loss / exact_loss - 1))
        exact = torch.cat(exact_gradients)
        difference = torch.cat(gradients) - exact
        error = difference.norm() / exact.norm()
        gradient_errors.append(float(error))

    seconds = time_in_turns(
        rounds,
        lambda number: step(ours, batches[number]),
        lambda number: step(dense, batches[number]),
        check=check,
    )
    loss_error, gradient_error = max(loss_errors), max(gradient_errors)
    agreement = (
        f"dense; losses equal to {loss_error:.0e}, gradients to {gradient_error:.0e}"
    )
    gradients = gradient_mb(num_clips)
    memory, without_gradients = [], []
    for name in VARIANTS:
        _, extra_mb = run_in_new_process(step_alone, name, num_clips, threads)
        memory.append([extra_mb])
        without_gradients.append([extra_mb - gradients])
    what = f"loss, {num_clips} clips"
    extra = f"{what}, extra memory"
    return [
        Figure(f"{what}, forward and backward", "s", *seconds, note=agreement),
        Figure(extra, "MB", *memory),
        Figure(
            f"{extra} without the gradients of the states",
            "MB",
            *without_gradients,
            note=f"which both make ({gradients:.0f} MB)",
        ),
    ]


def gradient_mb(num_clips: int) -> float:
    """Returns the size of the gradients of all inputs in MB."""
    num_states = num_clips * (TEXT_POSITIONS + VIDEO_POSITIONS + 2)
    return num_states * HIDDEN * 4 / MB


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number(
        "--clips", 256, "clips of the comparison with dense; 0 skips it", least=0
    )
    parser.number("--large", 1024, "clips of our side alone; 0 skips it", least=0)
    parser.number("--rounds", 5)
    parser.number("--threads", torch.get_num_threads())
    args = parser.parse_args()
    if not (args.clips or args.large):
        raise UserError(
            "--clips 0 and --large 0 leave nothing to measure; set one of them above 0."
        )
    torch.set_num_threads(args.threads)
    figures = []
    if args.clips:
        figures += compare(args.clips, args.rounds, args.threads)
    if args.large:
        seconds, extra = run_in_new_process(
            step_alone, "ours", args.large, args.threads
        )
        note = f"of it {gradient_mb(args.large):.0f} MB are the gradients of the states"
        figures += [
            Figure(f"loss, {args.large} clips, forward and backward", "s", [seconds]),
            Figure(f"loss, {args.large} clips, extra memory", "MB", [extra], note=note),
        ]
    record(figures, args.out)


if __name__ == "__main__":
    run_script(main)
