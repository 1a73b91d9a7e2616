"""One demo video: which steps of its task it performs when, what is said, and what its seconds look
like.

Every video is made from (seed, split, index) alone, so a smaller corpus is the beginning of a
larger one.

Legend: S seconds, L latent size (64), E feature size (512).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from mmpt.prepare.demo_corpus.narration import Caption, narrate
from mmpt.prepare.demo_corpus.world import FEATURE_SIZE, LATENT_SIZE, Performance, World
from mmpt.utils.rng import stable_seed

MEDIAN_S, SPREAD, SHORTEST_S, LONGEST_S = 125, 0.3, 60, 220
SECONDS_PER_STEP = 7  # a video performs at most one step per so many of its seconds
GRAIN = 1.0  # noise of every second in all 512 dimensions, easy to filter out
CUTS_PER_S = 0.1  # in a background stretch the scene changes now and then
ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Video:
    """What happens in a video and what is said; `film` makes its features.

    Attributes:
        performances: in time order, not overlapping.
        captions: in time order, not overlapping.
    """

    id: str
    task: int
    num_seconds: int
    performances: tuple[Performance, ...]
    captions: tuple[Caption, ...]


def make_video(world: World, split: str, index: int) -> Video:
    """Make video `index` of `split`; its task goes round, so that every task has its share of
    videos.
    """
    seed = world.settings.seed
    rng = random.Random(stable_seed("video", seed, split, index))
    task = index % len(world.tasks)
    num_seconds = _draw_duration(rng)
    performances = _perform(world, task, num_seconds, rng)
    captions = narrate(world, performances, num_seconds, rng)
    return Video(video_id(seed, split, index), task, num_seconds, performances, captions)


def film(world: World, video: Video) -> np.ndarray:
    """Return the features of `video`, float16 [S, E]: what is seen, plus its style, plus noise, as
    unit rows.

    The sum is done in float64, so that the order in which a BLAS adds can hardly change a rounded
    bit.
    """
    settings = world.settings
    generator = np.random.default_rng(stable_seed("features", settings.seed, video.id))

    def noise(rows: int, size: int) -> np.ndarray:
        return generator.standard_normal((rows, size)) / math.sqrt(size)

    scenes_2L = world.backgrounds[generator.integers(len(world.backgrounds), size=2)]
    cuts_S = generator.random(video.num_seconds) < CUTS_PER_S
    seen_SL = scenes_2L[np.cumsum(cuts_S) % 2]
    for shown in video.performances:
        manner_L = settings.variation * noise(1, LATENT_SIZE)[0]
        seen_SL[shown.start : shown.end] = world.prototype(shown.step, shown.kind) + manner_L
    seen_SL += settings.style * noise(1, LATENT_SIZE) + settings.noise * noise(
        video.num_seconds, LATENT_SIZE
    )
    features_SE = seen_SL @ world.basis + GRAIN * noise(video.num_seconds, FEATURE_SIZE)
    features_SE /= np.linalg.norm(features_SE, axis=1, keepdims=True)
    return features_SE.astype(np.float16)


def video_id(seed: int, split: str, index: int) -> str:
    """Return 11 characters like those of a video site, another for every (seed, split, index)."""
    value = stable_seed("id", seed, split, index)
    return "".join(
        ID_LETTERS[value // len(ID_LETTERS) ** place % len(ID_LETTERS)] for place in range(11)
    )


def _draw_duration(rng: random.Random) -> int:
    return round(min(max(rng.lognormvariate(math.log(MEDIAN_S), SPREAD), SHORTEST_S), LONGEST_S))


def _perform(
    world: World, task: int, num_seconds: int, rng: random.Random
) -> tuple[Performance, ...]:
    """Choose the steps (some left out, some done again after the next one) and share the seconds
    among them.
    """
    settings = world.settings
    steps = [step for step in world.tasks[task] if rng.random() >= settings.skip]
    kinds = {step: rng.choice(world.steps[step].kinds) for step in world.tasks[task]}
    for place in reversed(range(len(steps) - 1)):
        if rng.random() < settings.repeat:
            steps.insert(place + 2, steps[place])
    while len(steps) > num_seconds // SECONDS_PER_STEP:
        steps.pop(rng.randrange(len(steps)))
    if len(steps) < 3:
        steps = list(world.tasks[task][:3])
    shown = [rng.uniform(0.6, 1.5) for _ in steps]
    between = [rng.expovariate(1.0) for _ in range(len(steps) + 1)]
    scale_shown = (1 - settings.background) * num_seconds / sum(shown)
    scale_between = settings.background * num_seconds / sum(between)
    performances, now = [], 0.0
    for step, length, gap in zip(steps, shown, between, strict=False):
        begin = now + gap * scale_between
        now = begin + length * scale_shown
        performances.append(Performance(step, kinds[step], round(begin), round(now)))
    return tuple(performances)
