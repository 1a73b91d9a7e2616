"""A training step of Norton's recipe on the GPU, in several variants, and the plain one.

A step is forward, loss, backward and an Adam update of the LayerNorm parameters, which are kept in
float32 as well. Lengths are drawn as in how2_pretrain.yaml. Each variant starts from the same
weights and sees the same batches. Its first losses are recorded, to compare them with float32.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from gpu_day.part import Report
from loss import NORTON
from mmpt.losses import MMContraLoss
from mmpt.models.compilation import compile_layers
from mmpt.modules import packing
from step import batches, dense_float, real_share, towers

Batch = dict[str, Tensor]
LEARNING_RATE = 1e-3
"""A hundred times the learning rate of the recipe, so that the first ten losses differ."""
LOSS_SCALE = 128.0
"""Factor of the loss in float16, the one with which fairseq starts."""
NUM_LOSSES = 10
GROUP_COSTS = (1e7, 1e8, 1e9, 1e11)
"""Values of `packing.GPU_GROUP_FLOPS` that are compared with the default."""


@dataclass(frozen=True)
class Variant:
    """One way to compute the step."""

    dtype: torch.dtype
    plain: bool = False
    """Padded towers, eager attention and the dense loss."""
    compiled: bool = False
    chunk: int | str = False
    """`model.checkpoint_activations`."""
    dropout: float = 0.0

    @property
    def name(self) -> str:
        """The name of the variant in the report."""
        words = [
            f"{'plain' if self.plain else 'ours'} {str(self.dtype).removeprefix('torch.')}"
        ]
        if self.compiled:
            words.append("compiled")
        if self.chunk:
            words.append(f"chunks of {self.chunk}")
        if self.dropout:
            words.append(f"dropout {self.dropout}")
        return f"step, {', '.join(words)}"


@dataclass(frozen=True)
class Scale:
    """The size of the measurement."""

    device: torch.device
    model: str
    num_videos: int
    chunk: int
    num_batches: int
    num_timed: int

    @classmethod
    def of(cls, report: Report) -> "Scale":
        """Returns the recipe's size, or a small one for a rehearsal."""
        if report.rehearse:
            return cls(torch.device("cpu"), "demo", 2, 8, 2, 2)
        return cls(torch.device("cuda"), "base", 64, 256, 10, 20)


class Trainer:
    """A model, its loss and its optimizer.

    The optimizer works on float32 copies of the trained parameters, as fairseq's does.
    """

    def __init__(self, variant: Variant, scale: Scale):
        self.model = towers(
            scale.model,
            packed=not variant.plain,
            device=scale.device,
            dtype=variant.dtype,
            dropout=variant.dropout,
            chunk=variant.chunk,
        )
        if variant.compiled:
            compile_layers(self.model, scale.device)
        norton = MMContraLoss(NORTON)
        self.loss: Callable[[Any], Tensor] = lambda output: norton(**output).total
        if variant.plain:
            self.loss = dense_float
        self.trained = [each for each in self.model.parameters() if each.requires_grad]
        self.masters = [each.detach().float().clone() for each in self.trained]
        self.optimizer = torch.optim.Adam(self.masters, LEARNING_RATE, foreach=True)
        self.scale = LOSS_SCALE if variant.dtype == torch.float16 else 1.0

    def step(self, batch: Batch) -> Tensor:
        """Runs a step and returns its loss, on the device."""
        self.model.zero_grad(set_to_none=True)
        loss = self.loss(self.model(**batch))
        (loss * self.scale).backward()
        with torch.no_grad():
            for master, parameter in zip(self.masters, self.trained, strict=True):
                gradient = parameter.grad  # None for BERT's poolers
                master.grad = (
                    None if gradient is None else gradient.float() / self.scale
                )
            self.optimizer.step()
            for master, parameter in zip(self.masters, self.trained, strict=True):
                parameter.copy_(master)
        return loss.detach()


def recipe_batches(scale: Scale) -> list[Batch]:
    """Returns batches whose lengths are drawn as in the recipe, on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        return batches(Path(folder), scale.num_videos, scale.num_batches)


def on_device(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """Returns a batch on the device, with features in `dtype`."""
    moved = {name: values.to(device) for name, values in batch.items()}
    moved["vfeats"] = moved["vfeats"].to(dtype)
    return moved


def milliseconds(work: Callable[[], Any], device: torch.device) -> float:
    """Returns the time of `work()` on the device."""
    if device.type == "cpu":
        begin = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - begin)
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def measure_variant(
    report: Report, variant: Variant, scale: Scale, drawn: list[Batch], num_timed: int
) -> None:
    """Records the first losses of a variant, the median time of later steps, and their peak memory.

    Args:
        num_timed: number of steps that are timed, after `NUM_LOSSES` others.
    """
    name, device = variant.name, scale.device
    counters.clear()
    begin = time.perf_counter()
    trainer = Trainer(variant, scale)
    moved = [on_device(batch, device, variant.dtype) for batch in drawn]
    losses = []
    for number in range(NUM_LOSSES):
        losses.append(trainer.step(moved[number % len(moved)]))
        if number == 0 and variant.compiled:
            losses[0].item()
            report.add(f"{name}: s of the first step", time.perf_counter() - begin)
    report.add(f"{name}: losses", torch.stack(losses).tolist())
    if not num_timed:
        return
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    for number in range(num_timed):
        step = functools.partial(trainer.step, moved[number % len(moved)])
        times.append(milliseconds(step, device))
    report.add(f"{name}: ms", statistics.median(times))
    report.add(f"{name}: ms, least and most", [min(times), max(times)])
    if variant.compiled:
        # More graphs than two for each part of a layer would mean that shapes are not dynamic.
        report.add(f"{name}: graphs", counters["stats"]["unique_graphs"])
    if device.type == "cuda":
        # Without the batches that wait for their turn.
        waiting = sum(each.nbytes for batch in moved[1:] for each in batch.values())
        peak = torch.cuda.max_memory_allocated() - waiting
        report.add(f"{name}: peak GB", peak / 1e9)
        report.add(f"{name}: reserved GB", torch.cuda.max_memory_reserved() / 1e9)


def measure(report: Report, variants: list[tuple[Variant, int]], scale: Scale) -> None:
    """Measures variants. One that fails does not stop the others."""
    drawn = recipe_batches(scale)
    share = statistics.mean(real_share(batch, 6, 12) for batch in drawn)
    report.add("step, % of padded token-layers that are real", 100 * share)
    for variant, num_timed in variants:
        with report.attempt(variant.name):
            measure_variant(report, variant, scale, drawn, num_timed)
        # torch limits how often it compiles a function, and counts all models together.
        torch.compiler.reset()
        if scale.device.type == "cuda":
            torch.cuda.empty_cache()


def measure_steps(report: Report) -> None:
    """Measures our step without compilation, and the plain one."""
    scale = Scale.of(report)
    half = (torch.bfloat16,) if report.rehearse else (torch.bfloat16, torch.float16)
    plain = torch.float32 if report.rehearse else torch.float16
    timed = scale.num_timed
    variants = [(Variant(dtype), timed) for dtype in half]
    variants.append((Variant(plain, plain=True), timed))
    variants.append((Variant(torch.float32), 0))
    variants += [(Variant(dtype, chunk=scale.chunk), timed) for dtype in half]
    variants += [(Variant(dtype, dropout=0.1), timed) for dtype in half]
    with report.attempt("step, copy of a batch"):
        measure_copy(report, scale)
    measure(report, variants, scale)
    measure_losses(report)
    default = packing.GPU_GROUP_FLOPS
    for cost in () if report.rehearse else GROUP_COSTS:
        packing.GPU_GROUP_FLOPS = cost
        with report.attempt(f"groups at {cost:g}"):
            measure_groups(report, scale, cost)
    packing.GPU_GROUP_FLOPS = default


def measure_compiled_steps(report: Report) -> None:
    """Measures our step with `model.compile`."""
    scale = Scale.of(report)
    timed = scale.num_timed
    variants = [Variant(torch.bfloat16, compiled=True)]
    if not report.rehearse:
        variants.append(Variant(torch.bfloat16, compiled=True, dropout=0.1))
        variants.append(Variant(torch.float16, compiled=True))
        variants.append(Variant(torch.bfloat16, compiled=True, chunk=scale.chunk))
        variants.append(Variant(torch.float16, compiled=True, chunk=scale.chunk))
        variants.append(Variant(torch.float16, compiled=True, dropout=0.1))
    exact = [] if report.rehearse else [(Variant(torch.float32), 0)]
    measure(report, [*((variant, timed) for variant in variants), *exact], scale)
    measure_losses(report)


def measure_copy(report: Report, scale: Scale) -> None:
    """Records the time to copy a batch from memory that is not pinned, as fairseq does."""
    (batch,) = recipe_batches(
        Scale(scale.device, scale.model, scale.num_videos, scale.chunk, 1, 1)
    )
    batch["vfeats"] = batch["vfeats"].half()  # as in the files
    copy = functools.partial(on_device, batch, scale.device, torch.float16)
    times = [milliseconds(copy, scale.device) for _ in range(6)]
    report.add("step, copy of a batch: ms", statistics.median(times[1:]))


def measure_losses(report: Report) -> None:
    """Records the largest relative difference of each variant's losses from float32's."""
    exact = report.values.get("step, ours float32: losses")
    for name, losses in list(report.values.items()):
        variant = name.removesuffix(": losses")
        if exact is None or variant == name or "dropout" in name:
            continue
        differences = [
            abs(one - two) / two for one, two in zip(losses, exact, strict=True)
        ]
        report.add(f"{variant}: largest relative error of a loss", max(differences))


def measure_groups(report: Report, scale: Scale, cost: float) -> None:
    """Records the time of a bfloat16 step with another cost of an attention group."""
    variant = Variant(torch.bfloat16)
    trainer = Trainer(variant, scale)
    drawn = recipe_batches(
        Scale(scale.device, scale.model, scale.num_videos, scale.chunk, 2, 1)
    )
    times = []
    for number in range(12):
        batch = on_device(drawn[number % 2], scale.device, variant.dtype)
        times.append(milliseconds(functools.partial(trainer.step, batch), scale.device))
    tokens = drawn[0]["cmasks"]
    width = trainer.model.text_encoder.config.hidden_size
    groups = packing.plan_packing(tokens, cost / (24 * width**2)).groups
    report.add(
        f"step with groups at {cost:g} FLOP ({len(groups)} groups of captions): ms",
        statistics.median(times[4:]),
    )
