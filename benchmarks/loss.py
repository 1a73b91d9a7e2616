"""Norton's loss, forward and backward: ours beside a plain dense implementation of the same
equations, in one run.

    python benchmarks/loss.py                 # 256 clips beside dense, then ours alone at 1024;
    under a minute

Times are interleaved rounds in one process, each with a batch of its own. Extra memory is the
growth of the peak resident size over that with the inputs in place, in one step of a fresh process
(Linux); it includes the gradients of the states, which every implementation must make. Shapes are
those of pre-training: 31 text and 18 video positions, hidden 768, 8 to 32 pieces (cut to 29) and 3
to 16 seconds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mmpt.config import load_config
from mmpt.errors import UserError
from mmpt.losses import MMContraLoss
from process_memory import MB, apart, peak_memory
from results import Figure, at_least, record, run_script

TEXT_POSITIONS, VIDEO_POSITIONS, HIDDEN = 31, 18, 768
RECIPE = load_config(Path(__file__).parent.parent / "projects/retri/norton/how2_pretrain.yaml")
assert RECIPE.loss is not None, "the recipe trains"
NORTON = RECIPE.loss
Batch = dict[str, Tensor]
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
    video_mask = ((video_place >= 1) & (video_place <= num_video)) | (
        video_place == VIDEO_POSITIONS - 1
    )

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


def dense(batch: Batch) -> Tensor:
    """The same equations written out, with tensors over (caption, clip, token, token)."""
    video, text, num_clips = batch["pooled_video"], batch["pooled_text"], len(batch["pooled_video"])
    dots = video @ text.T
    uniform = dots.new_full((num_clips,), -math.log(2 * num_clips))
    plan = dense_plan(dots, uniform, uniform) * (2 * num_clips)
    targets = 0.3 * plan + 0.7 * torch.eye(num_clips)
    clip = (
        -(targets * dots.log_softmax(1)).sum(1).mean()
        - (targets.T * dots.T.log_softmax(1)).sum(1).mean()
    )

    fused = (0.5 * dense_min_max(unit(text) @ unit(video).T) + dense_token_similarity(batch)) / 1.5
    rho = fused.detach().diagonal().sort().values[int(0.3 * num_clips) - 1]
    blocks = fused.view(num_clips // 8, 8, num_clips // 8, 8).transpose(1, 2)
    padded = rho.expand(*blocks.shape[:2], 9, 9).clone()
    padded[..., :8, :8] = blocks.detach()
    mass = torch.full((9,), -math.log(16))
    mass[8] += math.log(8)
    plans = dense_plan(padded / 0.1, mass, mass)[..., :8, :8]
    plans = plans * (8 / plans.sum((2, 3), keepdim=True))
    logits = (plans * blocks).sum((2, 3)) / 0.07
    own = torch.arange(len(logits))
    paragraph = torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(
        logits.T, own
    )
    return clip + 0.1 * paragraph


def dense_token_similarity(batch: Batch) -> Tensor:
    """(W1 + W2) / 2, each min-max normalised."""
    text_mask, video_mask = batch["text_mask_outputs"], batch["video_mask_outputs"]
    alpha = 1.0
    cosines = torch.einsum(
        "atd,bvd->abtv", unit(batch["text_outputs"]), unit(batch["video_outputs"])
    )
    exp = (
        cosines.masked_fill(~(text_mask[:, None, :, None] & video_mask[None, :, None, :]), 0)
        .div(alpha)
        .exp()
    )
    t2v = (
        alpha
        * (exp.sum(3) - (~video_mask).sum(1)[None, :, None]).log().sum(2)
        / text_mask.sum(1)[:, None]
    )
    v2t = alpha * (exp.sum(2) - (~text_mask).sum(1)[:, None, None]).log().sum(2) / video_mask.sum(1)
    return (dense_min_max(t2v) + dense_min_max(v2t)) / 2


def unit(states: Tensor) -> Tensor:
    """Divide by the norm."""
    return states / states.norm(dim=-1, keepdim=True)


def dense_min_max(matrix: Tensor) -> Tensor:
    """Map to [0, 1]."""
    return (matrix - matrix.min()) / (matrix.max() - matrix.min())


@torch.no_grad()
def dense_plan(kernel: Tensor, log_mu: Tensor, log_nu: Tensor) -> Tensor:
    """Fifty log-domain Sinkhorn updates."""
    u, v = torch.zeros_like(kernel[..., 0]), torch.zeros_like(kernel[..., 0, :])
    for _ in range(50):
        u = log_mu - (kernel + v[..., None, :]).logsumexp(-1)
        v = log_nu - (kernel + u[..., None]).logsumexp(-2)
    plan = (kernel + u[..., None] + v[..., None, :]).exp()
    return plan if plan.dim() == 2 else plan * 16


VARIANTS: dict[str, LossFunction] = {"ours": ours, "dense": dense}


def step(loss: LossFunction, batch: Batch) -> tuple[float, float]:
    """Run forward and backward once; return the loss and the seconds."""
    for tensor in batch.values():
        tensor.grad = None
    begin = time.perf_counter()
    total = loss(batch)
    total.backward()
    return total.item(), time.perf_counter() - begin


def step_alone(name: str, num_clips: int, threads: int) -> tuple[float, float]:
    """In a fresh process: return (seconds, extra MB) of one step."""
    torch.set_num_threads(threads)
    step(VARIANTS[name], draw_batch(16))  # libraries and thread pools load
    batch = draw_batch(num_clips)
    before = peak_memory()
    _, seconds = step(VARIANTS[name], batch)
    return seconds, (peak_memory() - before) / MB


def compare(num_clips: int, rounds: int, threads: int) -> list[Figure]:
    """Measure times, memory and agreement of both variants."""
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    off = {"value": 0.0, "gradient": 0.0}
    for number in range(rounds + 1):  # the first round warms up
        batch = draw_batch(num_clips, seed=number)
        values: dict[str, float] = {}
        gradients: dict[str, Tensor] = {}
        for name, loss in VARIANTS.items():
            values[name], took = step(loss, batch)
            gradients[name] = torch.cat(
                [value.grad.flatten() for value in batch.values() if value.grad is not None]
            )
            if number:
                seconds[name].append(took)
        off["value"] = max(off["value"], abs(values["ours"] / values["dense"] - 1))
        difference = (gradients["ours"] - gradients["dense"]).norm() / gradients["dense"].norm()
        off["gradient"] = max(off["gradient"], float(difference))
    agreement = f"losses equal to {off['value']:.0e}, gradients to {off['gradient']:.0e}"
    memory = {name: [apart(step_alone, name, num_clips, threads)[1]] for name in VARIANTS}
    beside = {
        name: [extra - gradient_mb(num_clips) for extra in extras]
        for name, extras in memory.items()
    }
    what = f"loss, {num_clips} clips"
    both = f"which both make ({gradient_mb(num_clips):.0f} MB)"
    return [
        Figure(
            f"{what}, forward and backward",
            "s",
            seconds["ours"],
            seconds["dense"],
            f"dense; {agreement}",
        ),
        Figure(f"{what}, extra memory", "MB", memory["ours"], memory["dense"]),
        Figure(
            f"{what}, extra memory beside the gradients of the states",
            "MB",
            beside["ours"],
            beside["dense"],
            both,
        ),
    ]


def gradient_mb(num_clips: int) -> float:
    """Size of the gradients of all states."""
    return num_clips * (TEXT_POSITIONS + VIDEO_POSITIONS + 2) * HIDDEN * 4 / MB


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clips",
        type=at_least(0),
        default=256,
        help="clips of the comparison with dense; 0 skips it",
    )
    parser.add_argument(
        "--large", type=at_least(0), default=1024, help="clips of the run of ours alone; 0 skips it"
    )
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--threads", type=at_least(1), default=torch.get_num_threads())
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
