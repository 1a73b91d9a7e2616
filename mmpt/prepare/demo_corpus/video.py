"""Makes the videos of the demo corpus: the steps that they show, their captions and their features.

A video depends on (seed, split, index) only, so a smaller corpus is the beginning of a larger one.

Legend: S seconds, L latent size (64), E feature size (512).
"""

import itertools
import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpt.prepare.demo_corpus import words
from mmpt.prepare.demo_corpus.world import FEATURE_SIZE, LATENT_SIZE, Performance, World
from mmpt.utils.rng import stable_seed

MEDIAN_S, SPREAD, SHORTEST_S, LONGEST_S = 125, 0.3, 60, 220
SECONDS_PER_STEP = 7  # smallest number of seconds of a video per step
GRAIN = 1.0  # strength of the noise in all 512 dimensions, which is easy to filter out
CUTS_PER_S = 0.1  # probability that the background changes in a second
ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

SECONDS_PER_SENTENCE = 4.0  # seconds of a step per sentence about it
WORDS_PER_S = 2.8  # speed of speech
SMALLEST_OFFSET_S = 4.0  # smallest offset of a step that is narrated early or late
JITTER_S = 1.0  # largest offset of all other steps
MAX_SPOKEN_SHARE = 0.98  # largest share of a video that is filled with speech


class Caption(NamedTuple):
    """A sentence of the narration."""

    start: float  # seconds, with two decimals
    end: float  # seconds, with two decimals
    text: str
    about: int | None  # position of the performance that it is about; None: chat


class _Sentence(NamedTuple):
    """A sentence that has no exact time yet."""

    wanted_s: float  # the time at which it should be said
    text: str
    about: int | None = None


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
    rng = random.Random(stable_seed("video", seed, split, index))
    task = index % len(world.tasks)
    drawn_s = rng.lognormvariate(math.log(MEDIAN_S), SPREAD)
    num_seconds = round(min(max(drawn_s, SHORTEST_S), LONGEST_S))
    performances = _draw_performances(world, task, num_seconds, rng)
    captions = _narrate(world, performances, num_seconds, rng)
    # The digits of a hash in base 62 are the letters of the id.
    number, base = stable_seed("id", seed, split, index), len(ID_LETTERS)
    letters = [ID_LETTERS[number // base**place % base] for place in range(11)]
    return Video("".join(letters), task, num_seconds, performances, captions)


def make_features(world: World, video: Video) -> np.ndarray:
    """Returns the features of a video, float16 [S, E], as unit rows.

    Each row is the sum of the look of the step or background that is seen, a style of the video,
    and noise. It is computed in float64, so that the order of additions, which depends on the BLAS,
    changes hardly any bit of the result.
    """
    settings = world.settings
    generator = np.random.default_rng(stable_seed("features", settings.seed, video.id))

    def noise(rows: int, size: int) -> np.ndarray:
        return generator.standard_normal((rows, size)) / math.sqrt(size)

    # Start with the background, which changes between two scenes.
    scenes_2L = world.backgrounds[generator.integers(len(world.backgrounds), size=2)]
    cuts_S = generator.random(video.num_seconds) < CUTS_PER_S
    seen_SL = scenes_2L[np.cumsum(cuts_S) % 2]
    # Steps replace the background. Each performance looks a little different.
    for shown in video.performances:
        variation_L = settings.variation * noise(1, LATENT_SIZE)[0]
        seen_SL[shown.start : shown.end] = world.prototype(shown.step, shown.kind) + variation_L
    # Add style and noise in the latent space, then grain in the feature space.
    style_1L = settings.style * noise(1, LATENT_SIZE)
    seen_SL += style_1L + settings.noise * noise(video.num_seconds, LATENT_SIZE)
    features_SE = seen_SL @ world.basis + GRAIN * noise(video.num_seconds, FEATURE_SIZE)
    features_SE /= np.linalg.norm(features_SE, axis=1, keepdims=True)
    return features_SE.astype(np.float16)


def _draw_performances(
    world: World, task: int, num_seconds: int, rng: random.Random
) -> tuple[Performance, ...]:
    """Draws the steps that a video shows, and their times.

    Some steps of the task are left out, and some are repeated after the next one. There are at
    least three.
    """
    settings = world.settings
    steps = [step for step in world.tasks[task] if rng.random() >= settings.skip]
    kinds = {step: rng.choice(world.steps[step].kinds) for step in world.tasks[task]}
    for position in reversed(range(len(steps) - 1)):
        if rng.random() < settings.repeat:
            steps.insert(position + 2, steps[position])
    while len(steps) > num_seconds // SECONDS_PER_STEP:
        steps.pop(rng.randrange(len(steps)))
    if len(steps) < 3:
        steps = list(world.tasks[task][:3])
    # Draw lengths of the steps and of the gaps around them, and scale both so that the background
    # has its share of the video.
    lengths = [rng.uniform(0.6, 1.5) for _ in steps]
    gaps = [rng.expovariate(1.0) for _ in range(len(steps) + 1)]
    length_scale = (1 - settings.background) * num_seconds / sum(lengths)
    gap_scale = settings.background * num_seconds / sum(gaps)
    performances, now = [], 0.0
    for step, length, gap in zip(steps, lengths, gaps, strict=False):
        begin = now + gap * gap_scale
        now = begin + length * length_scale
        performances.append(Performance(step, kinds[step], round(begin), round(now)))
    return tuple(performances)


def _narrate(
    world: World, performances: Sequence[Performance], num_seconds: int, rng: random.Random
) -> tuple[Caption, ...]:
    """Returns the captions of a video: sentences about some of its steps, and chat.

    There is at least one caption. Each sentence has a time at which it should be said. Sentences
    are sorted by this time and then moved so that they do not overlap.
    """
    sentences: list[_Sentence] = []
    for position, shown in enumerate(performances):
        if rng.random() >= world.settings.omit:
            sentences += _narrate_step(world, position, shown, rng)
    # Add as much chat as makes its share of all sentences.
    share = world.settings.irrelevant
    num_chats = round(len(sentences) * share / (1 - share)) if sentences else 3
    craft = words.CRAFTS[world.steps[performances[0].step].craft]
    sentences += _draw_chat(num_chats, craft, num_seconds, rng)
    sentences.sort(key=lambda sentence: sentence.wanted_s)
    return _schedule(sentences, num_seconds)


def _narrate_step(
    world: World, position: int, shown: Performance, rng: random.Random
) -> list[_Sentence]:
    """Returns sentences about one performance, spread over its time and shifted early or late.

    Args:
        position: position of the performance in its video.
    """
    if rng.random() < world.settings.misalign:
        offset = rng.choice((-1, 1)) * rng.uniform(SMALLEST_OFFSET_S, world.settings.max_offset)
    else:
        offset = rng.uniform(-JITTER_S, JITTER_S)
    length = shown.end - shown.start
    count = max(1, round(length / SECONDS_PER_SENTENCE))
    patterns = itertools.cycle(rng.sample(words.NARRATION, len(words.NARRATION)))
    sentences = []
    for number, pattern in enumerate(itertools.islice(patterns, count)):
        text = world.steps[shown.step].fill(pattern, shown.kind)
        wanted_s = shown.start + offset + number * length / count
        sentences.append(_Sentence(wanted_s, text, position))
    return sentences


def _draw_chat(
    count: int, craft: words.Craft, num_seconds: int, rng: random.Random
) -> list[_Sentence]:
    """Returns a greeting, a farewell and other sentences, with words of the craft, that are not
    about a step.
    """
    pools = {"do": craft.verbs, "thing": craft.things, "tool": craft.tools, "kind": words.KINDS}
    sentences = []
    for number in range(count):
        if number == 0:
            sentences.append(_Sentence(-math.inf, rng.choice(words.GREETINGS)))
        elif number == 1:
            sentences.append(_Sentence(math.inf, rng.choice(words.FAREWELLS)))
        else:
            pattern = rng.choice(words.CHAT)
            filled = {slot: rng.choice(pool) for slot, pool in pools.items()}
            text = pattern.format(**filled)
            sentences.append(_Sentence(rng.uniform(0, num_seconds), text))
    return sentences


def _schedule(sentences: Sequence[_Sentence], num_seconds: int) -> tuple[Caption, ...]:
    """Returns the captions of sentences that are sorted by their wanted times.

    Captions are inside the video and do not overlap.
    """
    # If all sentences together are longer than the video, they are spoken faster.
    lengths = [len(sentence.text.split()) / WORDS_PER_S for sentence in sentences]
    pace = min(1.0, MAX_SPOKEN_SHARE * num_seconds / sum(lengths))
    lengths = [length * pace for length in lengths]
    # Forward: a sentence starts when it should, but not before the previous one has ended.
    starts, free_from = [], 0.0
    for sentence, length in zip(sentences, lengths, strict=True):
        starts.append(max(free_from, min(sentence.wanted_s, num_seconds - length)))
        free_from = starts[-1] + length
    # Backward: a sentence ends before the next one starts, and the last one before the video ends.
    captions: list[Caption] = []
    end = float(num_seconds)
    for sentence, start, length in reversed(list(zip(sentences, starts, lengths, strict=True))):
        end = min(start, end - length)
        rounded_start = max(0.0, round(end, 2))
        rounded_end = max(0.0, round(end + length, 2))
        captions.append(Caption(rounded_start, rounded_end, sentence.text, sentence.about))
    return tuple(reversed(captions))
