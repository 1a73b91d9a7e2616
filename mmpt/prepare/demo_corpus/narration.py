"""Makes the narration of the demo corpus: what is said about the steps of a video, and when."""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from mmpt.prepare.demo_corpus import words
from mmpt.prepare.demo_corpus.world import Performance, World

SECONDS_PER_SENTENCE = 4.0  # seconds of a step per sentence about it
WORDS_PER_S = 2.8  # speed of speech
MIN_OFFSET_S = 4.0  # smallest offset of a step that is narrated early or late
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


def narrate(
    world: World,
    performances: Sequence[Performance],
    num_seconds: int,
    rng: random.Random,
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
    num_chats = 3
    if sentences:
        share = world.settings.irrelevant
        num_chats = round(len(sentences) * share / (1 - share))
    first_step = world.steps[performances[0].step]
    craft = words.CRAFTS[first_step.craft]
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
    settings = world.settings
    if rng.random() < settings.misalign:
        direction = rng.choice((-1, 1))
        offset = direction * rng.uniform(MIN_OFFSET_S, settings.max_offset)
    else:
        offset = rng.uniform(-JITTER_S, JITTER_S)
    length = shown.end - shown.start
    count = round(length / SECONDS_PER_SENTENCE)
    count = max(1, count)
    # Patterns come in random order. After all of them, the same order begins again.
    patterns = rng.sample(words.NARRATION, len(words.NARRATION))
    step = world.steps[shown.step]
    sentences = []
    for number in range(count):
        pattern = patterns[number % len(patterns)]
        text = step.fill(pattern, shown.kind)
        # Without vague sentences no number is drawn, so that the other random choices stay.
        if settings.vague and rng.random() < settings.vague:
            text = rng.choice(words.VAGUE)
        wanted_s = shown.start + offset + number * length / count
        sentences.append(_Sentence(wanted_s, text, position))
    return sentences


def _draw_chat(
    count: int, craft: words.Craft, num_seconds: int, rng: random.Random
) -> list[_Sentence]:
    """Returns a greeting, a farewell and other sentences, with words of the craft, that are not
    about a step.
    """
    pools = {
        "do": craft.verbs,
        "thing": craft.things,
        "tool": craft.tools,
        "kind": words.KINDS,
    }
    sentences = []
    for number in range(count):
        if number == 0:
            text = rng.choice(words.GREETINGS)
            wanted_s = -math.inf
        elif number == 1:
            text = rng.choice(words.FAREWELLS)
            wanted_s = math.inf
        else:
            pattern = rng.choice(words.CHAT)
            filled = {slot: rng.choice(pool) for slot, pool in pools.items()}
            text = pattern.format(**filled)
            wanted_s = rng.uniform(0, num_seconds)
        sentences.append(_Sentence(wanted_s, text))
    return sentences


def _schedule(sentences: Sequence[_Sentence], num_seconds: int) -> tuple[Caption, ...]:
    """Returns the captions of sentences that are sorted by their wanted times.

    Captions are inside the video and do not overlap.
    """
    # Sentences that should be said at the same time push each other apart, in two passes. Their
    # order and their lengths stay.
    lengths = _spoken_lengths(sentences, num_seconds)
    # Forward: a sentence starts when it should, but not before the previous one has ended.
    starts = []
    free_from = 0.0
    for sentence, length in zip(sentences, lengths, strict=True):
        latest_start = num_seconds - length
        start = min(sentence.wanted_s, latest_start)
        start = max(free_from, start)
        starts.append(start)
        free_from = start + length
    # Backward: a sentence ends before the next one starts, and the last one before the video ends.
    captions: list[Caption] = []
    next_start = float(num_seconds)
    spoken = list(zip(sentences, starts, lengths, strict=True))
    for sentence, start, length in reversed(spoken):
        start = min(start, next_start - length)
        end = start + length
        caption = Caption(
            start=max(0.0, round(start, 2)),
            end=max(0.0, round(end, 2)),
            text=sentence.text,
            about=sentence.about,
        )
        captions.append(caption)
        next_start = start
    captions.reverse()
    return tuple(captions)


def _spoken_lengths(sentences: Sequence[_Sentence], num_seconds: int) -> list[float]:
    """Returns how many seconds each sentence takes.

    If all sentences together are longer than the video, they are spoken faster.
    """
    lengths = []
    for sentence in sentences:
        num_words = len(sentence.text.split())
        lengths.append(num_words / WORDS_PER_S)
    max_spoken_s = MAX_SPOKEN_SHARE * num_seconds
    pace = min(1.0, max_spoken_s / sum(lengths))
    return [length * pace for length in lengths]
