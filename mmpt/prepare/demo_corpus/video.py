"""Makes the videos of the demo corpus: the steps that they show, and their features.

A video depends on (seed, split, index) only, so a smaller corpus is the beginning of a larger one.

Legend: S seconds, L latent size (64), E feature size (512).
"""

import math
import random
import string
from typing import NamedTuple

import numpy as np

from mmpt.prepare.demo_corpus.narration import Caption, narrate
from mmpt.prepare.demo_corpus.world import FEATURE_SIZE, LATENT_SIZE, Performance, World
from mmpt.utils.rng import stable_seed

# Lengths of videos are drawn from a log-normal distribution and clamped.
MEDIAN_S = 125
SPREAD = 0.3  # standard deviation of the logarithm
MIN_DURATION_S = 60
MAX_DURATION_S = 220
MIN_STEPS = 3  # smallest number of steps of a video
SECONDS_PER_STEP = 7  # smallest number of seconds of a video per step
GRAIN = 1.0  # strength of the noise in all 512 dimensions, which is easy to filter out
CUTS_PER_S = 0.1  # probability that the background changes in a second
ID_LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
ID_LENGTH = 11


class Video(NamedTuple):
    """The events of a video. `make_features` computes its features.

    Attributes:
        id: eleven letters and digits, like the ids of YouTube.
        task: position in `World.tasks`.
        num_seconds: length of the video.
        performances: the steps shown, ordered by time, without overlaps.
        captions: the narration, ordered by time, without overlaps.
    """

    id: str
    task: int
    num_seconds: int
    performances: tuple[Performance, ...]
    captions: tuple[Caption, ...]


def make_video(world: World, split: str, index: int) -> Video:
    """Makes one video. Videos take turns with the tasks, so all tasks have equally many videos.

    Args:
        split: name of the split.
        index: number of the video in the split, from 0.
    """
    seed = world.settings.seed
    video_seed = stable_seed("video", seed, split, index)
    rng = random.Random(video_seed)
    task = index % len(world.tasks)
    drawn_s = rng.lognormvariate(math.log(MEDIAN_S), SPREAD)
    clamped_s = min(max(drawn_s, MIN_DURATION_S), MAX_DURATION_S)
    num_seconds = round(clamped_s)
    performances = _draw_performances(world, task, num_seconds, rng)
    captions = narrate(world, performances, num_seconds, rng)
    id_number = stable_seed("id", seed, split, index)
    return Video(
        id=_spell_id(id_number),
        task=task,
        num_seconds=num_seconds,
        performances=performances,
        captions=captions,
    )


def _spell_id(number: int) -> str:
    """Returns the last eleven digits of a number in base 62, the lowest digit first."""
    letters = ""
    for _ in range(ID_LENGTH):
        number, digit = divmod(number, len(ID_LETTERS))
        letters += ID_LETTERS[digit]
    return letters


def make_features(world: World, video: Video) -> np.ndarray:
    """Returns the features of a video, float16 [S, E], as unit rows.

    Each row is the sum of the look of the step or background that is seen, a style of the video,
    and noise. It is computed in float64, so that the order of additions, which depends on the BLAS,
    changes hardly any bit of the result.
    """
    settings = world.settings
    num_seconds = video.num_seconds
    seed = stable_seed("features", settings.seed, video.id)
    generator = np.random.default_rng(seed)

    def noise(rows: int, size: int) -> np.ndarray:
        """Returns random rows whose expected squared length is 1."""
        gaussian = generator.standard_normal((rows, size))
        return gaussian / math.sqrt(size)

    # Start with the background, which changes between two scenes.
    num_backgrounds = len(world.backgrounds)
    chosen_2 = generator.integers(num_backgrounds, size=2)
    scenes_2L = world.backgrounds[chosen_2]
    cuts_S = generator.random(num_seconds) < CUTS_PER_S
    scene_S = np.cumsum(cuts_S) % 2
    seen_SL = scenes_2L[scene_S]
    # Steps replace the background. Each performance looks a little different.
    for shown in video.performances:
        prototype_L = world.prototype(shown.step, shown.kind)
        variation_1L = settings.variation * noise(1, LATENT_SIZE)
        seen_SL[shown.start : shown.end] = prototype_L + variation_1L
    # Add style and noise in the latent space.
    style_1L = settings.style * noise(1, LATENT_SIZE)
    noise_SL = settings.noise * noise(num_seconds, LATENT_SIZE)
    seen_SL += style_1L + noise_SL
    # Embed in the feature space, and add grain there.
    embedded_SE = seen_SL @ world.basis
    grain_SE = GRAIN * noise(num_seconds, FEATURE_SIZE)
    features_SE = embedded_SE + grain_SE
    norms_S1 = np.linalg.norm(features_SE, axis=1, keepdims=True)
    features_SE /= norms_S1
    return features_SE.astype(np.float16)


def _draw_performances(
    world: World, task: int, num_seconds: int, rng: random.Random
) -> tuple[Performance, ...]:
    """Draws the steps that a video shows, the kinds of their things, and their times."""
    settings = world.settings
    task_steps = world.tasks[task]
    # Leave out some steps, and repeat some.
    shown = []
    for step in task_steps:
        if rng.random() >= settings.skip:
            shown.append(step)
    # Without reordered videos no number is drawn, so that the other random choices stay.
    if settings.reorder and rng.random() < settings.reorder:
        rng.shuffle(shown)
    kinds = {}
    for step in task_steps:
        possible_kinds = world.steps[step].kinds
        kinds[step] = rng.choice(possible_kinds)
    _repeat_steps(shown, settings.repeat, rng)
    # Each step must get enough time.
    max_steps = num_seconds // SECONDS_PER_STEP
    while len(shown) > max_steps:
        surplus = rng.randrange(len(shown))
        shown.pop(surplus)
    if len(shown) < MIN_STEPS:
        shown = list(task_steps[:MIN_STEPS])
    times = _draw_times(len(shown), num_seconds, settings.background, rng)
    performances = []
    for step, (start, end) in zip(shown, times, strict=True):
        performance = Performance(step, kinds[step], start, end)
        performances.append(performance)
    return tuple(performances)


def _repeat_steps(steps: list[int], share: float, rng: random.Random) -> None:
    """Inserts a second performance of some steps, each after the step that follows it.

    Args:
        share: probability of each step, except for the last one.
    """
    # From the end, so that insertions do not move the positions that are still to come.
    for position in reversed(range(len(steps) - 1)):
        if rng.random() < share:
            steps.insert(position + 2, steps[position])


def _draw_times(
    num_steps: int, num_seconds: int, background: float, rng: random.Random
) -> list[tuple[int, int]]:
    """Draws the start and end of each step, in seconds.

    Lengths of the steps, and of the gaps before, between and after them, are drawn first. Both are
    then scaled so that the gaps have their share of the video.

    Args:
        background: share of the video that the gaps take together.
    """
    lengths = [rng.uniform(0.6, 1.5) for _ in range(num_steps)]
    gaps = [rng.expovariate(1.0) for _ in range(num_steps + 1)]
    length_scale = (1 - background) * num_seconds / sum(lengths)
    gap_scale = background * num_seconds / sum(gaps)
    times = []
    end = 0.0
    for length, gap in zip(lengths, gaps, strict=False):
        # The last gap comes after the last step.
        start = end + gap * gap_scale
        end = start + length * length_scale
        times.append((round(start), round(end)))
    return times
