"""A demo video: which steps of its task it performs when, what is said, and what its seconds look
like.

Every video is made from (seed, split, index) alone, so a smaller corpus is the beginning of a
larger one.

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
SECONDS_PER_STEP = 7  # a video performs at most one step per so many of its seconds
GRAIN = 1.0  # noise of every second in all 512 dimensions, easy to filter out
CUTS_PER_S = 0.1  # in a background stretch the scene changes now and then
ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

SECONDS_PER_SENTENCE = 4.0  # of a step that is spoken about
WORDS_PER_S = 2.8
SMALLEST_OFFSET_S = 4.0  # of a step narrated early or late
JITTER_S = 1.0  # of every other step
LATEST_SHARE = 0.98  # of a video that may be filled with speech


class Caption(NamedTuple):
    """A sentence said from `start` to `end` (seconds, two decimals) about performance `about`, or
    None for chat.
    """

    start: float
    end: float
    text: str
    about: int | None


class _Sentence(NamedTuple):
    at: float
    text: str
    about: int | None = None


class Video(NamedTuple):
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
    """Makes video `index` of `split`; its task goes round, so that every task has its share of
    videos.
    """
    seed = world.settings.seed
    rng = random.Random(stable_seed("video", seed, split, index))
    task = index % len(world.tasks)
    drawn_s = rng.lognormvariate(math.log(MEDIAN_S), SPREAD)
    num_seconds = round(min(max(drawn_s, SHORTEST_S), LONGEST_S))
    performances = _perform(world, task, num_seconds, rng)
    captions = _narrate(world, performances, num_seconds, rng)
    # Like the ids of a video site, another for every (seed, split, index).
    number, base = stable_seed("id", seed, split, index), len(ID_LETTERS)
    video_id = "".join(ID_LETTERS[number // base**place % base] for place in range(11))
    return Video(video_id, task, num_seconds, performances, captions)


def film(world: World, video: Video) -> np.ndarray:
    """Returns the features of `video`, float16 [S, E]: what is seen, plus its style, plus noise, as
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
    style_1L = settings.style * noise(1, LATENT_SIZE)
    seen_SL += style_1L + settings.noise * noise(video.num_seconds, LATENT_SIZE)
    features_SE = seen_SL @ world.basis + GRAIN * noise(video.num_seconds, FEATURE_SIZE)
    features_SE /= np.linalg.norm(features_SE, axis=1, keepdims=True)
    return features_SE.astype(np.float16)


def _perform(
    world: World, task: int, num_seconds: int, rng: random.Random
) -> tuple[Performance, ...]:
    """Chooses the steps (some left out, some done again after the next one) and shares the seconds
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


def _narrate(
    world: World, performances: Sequence[Performance], num_seconds: int, rng: random.Random
) -> tuple[Caption, ...]:
    """Returns what is said: sentences about the performed steps, early or late or left out, and
    chat; at least one.

    Sentences get the moment at which they should be said, are sorted by it, and then take their
    turns: nobody speaks twice at once, so a late sentence pushes the next.
    """
    sentences = []
    for place, shown in enumerate(performances):
        if rng.random() >= world.settings.omit:
            sentences += _tell(world, place, shown, rng)
    share = world.settings.irrelevant
    num_chats = round(len(sentences) * share / (1 - share)) if sentences else 3
    craft = words.CRAFTS[world.steps[performances[0].step].craft]
    sentences += _chat(num_chats, craft, num_seconds, rng)
    return _take_turns(sorted(sentences, key=lambda sentence: sentence.at), num_seconds)


def _tell(world: World, place: int, shown: Performance, rng: random.Random) -> list[_Sentence]:
    """Returns sentences about one performance, spread over its time and moved early or late."""
    if rng.random() < world.settings.misalign:
        offset = rng.choice((-1, 1)) * rng.uniform(SMALLEST_OFFSET_S, world.settings.max_offset)
    else:
        offset = rng.uniform(-JITTER_S, JITTER_S)
    length = shown.end - shown.start
    count = max(1, round(length / SECONDS_PER_SENTENCE))
    patterns = itertools.cycle(rng.sample(words.NARRATION, len(words.NARRATION)))
    sentences = []
    for number, pattern in enumerate(itertools.islice(patterns, count)):
        text = world.steps[shown.step].say(pattern, shown.kind)
        sentences.append(_Sentence(shown.start + offset + number * length / count, text, place))
    return sentences


def _chat(count: int, craft: words.Craft, num_seconds: int, rng: random.Random) -> list[_Sentence]:
    """Returns a greeting, a farewell and chat in between, which has words of the craft but is not
    about what is seen.
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
            text = pattern.format(**{slot: rng.choice(pool) for slot, pool in pools.items()})
            sentences.append(_Sentence(rng.uniform(0, num_seconds), text))
    return sentences


def _take_turns(sentences: Sequence[_Sentence], num_seconds: int) -> tuple[Caption, ...]:
    """Gives sorted sentences times inside the video: each is pushed later by the one before, then
    earlier by the end.
    """
    lengths = [len(sentence.text.split()) / WORDS_PER_S for sentence in sentences]
    pace = min(1.0, LATEST_SHARE * num_seconds / sum(lengths))
    lengths = [length * pace for length in lengths]
    starts, free_from = [], 0.0
    for sentence, length in zip(sentences, lengths, strict=True):
        starts.append(max(free_from, min(sentence.at, num_seconds - length)))
        free_from = starts[-1] + length
    captions: list[Caption] = []
    end = float(num_seconds)
    for sentence, start, length in reversed(list(zip(sentences, starts, lengths, strict=True))):
        end = min(start, end - length)
        start, stop = (max(0.0, round(time, 2)) for time in (end, end + length))
        captions.append(Caption(start, stop, sentence.text, sentence.about))
    return tuple(reversed(captions))
