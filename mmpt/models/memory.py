"""How a batch fits into the memory at hand: what is computed again in backward, and how much is computed at once.

Activations are measured, not guessed: two clips of the greatest length run forward and backward on the model's own
device, in its own precision, while the bytes of all living tensors are counted. So what is chosen holds for any batch,
also for one in which every clip is as long as clips get; real ones are a quarter or a third shorter.

Legend: N clips, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from mmpt.losses import Loss
from mmpt.models.mmfusion import CLIPS_PER_FORWARD, MMFusionSeparate, Pooled
from mmpt.utils.peakbytes import PeakBytes

CLIPS_MEASURED = 2
LEAST_CHUNK, LARGEST_CHUNK = 8, 256
"""Clips of a chunk: with fewer a step would crawl; more are no faster."""
STATES_HELD = 3
"""Of all clips' states, while chunks are computed again: the states, their gradients, and a tower's put in order."""
LOSS_MATRICES = 20
"""Matrices [N, N] of float32 that a loss holds at most."""
LOSS_TILES = 8
"""Tiles that a loss holds at most."""


class ClipBytes(NamedTuple):
    """Bytes of one clip with its caption, both of the greatest length."""

    video: int
    """Most that forward and backward of the video tower hold, states and their gradient among it."""
    text: int
    """The same of the text tower."""
    states: int
    """What both towers return."""
    wide_states: int
    """The same in float32, in which losses compute, or wider."""
    forward: int
    """Most that both towers hold without gradient."""


def measure_clip(model: MMFusionSeparate, num_seconds: int, num_slots: int) -> ClipBytes:
    """Count what a clip of `num_seconds` seconds and a caption of `num_slots` text slots take in training.

    The model, its mode, gradients and the random number generators are left as they were.
    """
    weight = next(model.parameters())
    device, num = weight.device, CLIPS_MEASURED
    vfeats = torch.zeros(num, num_seconds, model.video_encoder.input_dim, device=device, dtype=weight.dtype)
    caps = torch.zeros(num, num_slots, dtype=torch.long, device=device)
    vmasks, cmasks = torch.ones_like(vfeats[..., 0], dtype=torch.bool), torch.ones_like(caps, dtype=torch.bool)

    def video() -> Pooled:
        return model.forward_video(vfeats, vmasks, caps, cmasks)

    def text() -> Pooled:
        return model.forward_text(caps, cmasks)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    asked = [parameter for parameter in trained if parameter.dim() < 2] or trained  # whose gradients are small
    was_training = model.training
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.compiler.set_stance("force_eager"):
        try:
            model.train()
            peaks = [_peak_of_training(run, asked) if trained else 0 for run in (video, text)]
            model.eval()
            with torch.no_grad(), PeakBytes() as count:
                pooled = video(), text()
        finally:
            model.train(was_training)
    states = sum(states.nbytes for _, states, _ in pooled)
    wide_states = states * max(4 // weight.itemsize, 1)
    return ClipBytes(*(each // num for each in (*peaks, states, wide_states, count.peak)))


def _peak_of_training(run: Callable[[], Pooled], asked: list[nn.Parameter]) -> int:
    with torch.enable_grad(), PeakBytes() as count:
        pooled, states, _ = run()
        gradients = [torch.ones_like(pooled), torch.ones_like(states)]
        torch.autograd.grad([pooled, states], asked, gradients, allow_unused=True)
    return count.peak


@dataclass(frozen=True)
class MemoryPlan:
    """What was chosen for a run from its `memory`."""

    clips_per_chunk: int | None
    """Clips whose activations training makes at once, to compute them again in backward; None: all, once."""
    clips_kept: int
    """Of as many clips of the greatest length activations are kept all the same; of shorter ones, of more."""
    tile_bytes: int | None
    """Bytes of a tile of the loss; None: as the loss chooses."""
    clips_per_forward: int
    """Most clips of one pass without gradient (embedding pass, evaluation)."""

    def apply(self, model: nn.Module, loss: Loss | None = None) -> None:
        """Set what the towers and the loss do from now on; models of another make are left alone."""
        if isinstance(model, MMFusionSeparate):
            model.clips_per_chunk = self.clips_per_chunk
            model.clips_kept = self.clips_kept
            model.clips_per_forward = self.clips_per_forward
        if loss is not None:
            loss.tile_bytes = self.tile_bytes


class Chunks(NamedTuple):
    """What training computes again: see `MemoryPlan`."""

    clips: int | None
    kept: int = 0


class Batch(NamedTuple):
    """What a training step is made of."""

    num_clips: int | None
    """N; None: whole videos of any length."""
    contrasted: int
    """Clips that the loss contrasts: N, or those of all processes."""
    inputs: int
    """Bytes of a clip's features, ids and masks in the batch that waits its turn."""
    tile: int
    """Bytes of a tile of the loss."""


def bytes_whole(clip: ClipBytes, batch: Batch) -> int:
    """Return the most bytes of a step that keeps all activations."""
    assert batch.num_clips is not None
    return batch.num_clips * (clip.video + clip.text + batch.inputs) + _bytes_of_loss(clip, batch)


def bytes_in_chunks(clip: ClipBytes, batch: Batch, chunk: int) -> int:
    """Return the most bytes of a step that computes activations again, `chunk` clips at a time."""
    assert batch.num_clips is not None
    whole = batch.num_clips * (STATES_HELD * clip.states + batch.inputs)
    return whole + chunk * max(clip.video, clip.text) + _bytes_of_loss(clip, batch)


def _bytes_of_loss(clip: ClipBytes, batch: Batch) -> int:
    matrices = 4 * LOSS_MATRICES * batch.contrasted**2
    return batch.contrasted * clip.wide_states + matrices + LOSS_TILES * batch.tile


def choose_chunk(room: float, clip: ClipBytes, batch: Batch, checkpoint: bool | None) -> Chunks | None:
    """Return what is computed again, or None when not even `LEAST_CHUNK` clips at a time fit.

    Args:
        room: bytes for the step.
        checkpoint: True: always compute all again; False: never; None: as much as does not fit.
    """
    if checkpoint is False:
        return Chunks(None)
    if batch.num_clips is None:  # up to a chunk is kept whole; more leave half of the room for the states
        return Chunks(power_below(min(room / 2 / (clip.video + clip.text + 1), LARGEST_CHUNK)) or 1)
    if checkpoint is None and bytes_whole(clip, batch) <= room:
        return Chunks(None)
    least = min(LEAST_CHUNK, batch.num_clips)
    left = room - bytes_in_chunks(clip, batch, 0)
    if left < least * max(clip.video, clip.text):
        return None
    chunk = power_below(min(left / 4 / max(clip.video, clip.text), LARGEST_CHUNK, batch.num_clips / 4))
    chunk = max(chunk, least)
    kept = 0 if checkpoint else (room - bytes_in_chunks(clip, batch, chunk)) / (clip.video + clip.text)
    return Chunks(chunk, int(kept))


def choose_forward(room: float, clip: ClipBytes, inputs: int, most: int = CLIPS_PER_FORWARD) -> int:
    """Return the clips of a pass without gradient, `most` if they fit, 0 when not even one does.

    Half of the room counts: the allocator may still hold what training has freed.

    Args:
        room: bytes for the pass.
        inputs: bytes of a clip's features, ids and masks.
    """
    return power_below(min(room / 2 / (clip.forward + inputs), most))


def power_below(number: float) -> int:
    """Return the largest power of 2 that is at most `number`, 0 below 1."""
    return 1 << (int(number).bit_length() - 1) if number >= 1 else 0
