"""What is said in a demo video: sentences about the performed steps, early or late or left out, and
chat.

Sentences get the moment at which they should be said, are sorted by it, and then take their turns:
nobody speaks twice at once, so a late sentence pushes the next.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from mmpt.prepare.demo_corpus.words import (
    CHAT,
    CLEAN,
    CRAFTS,
    FAREWELLS,
    GREETINGS,
    KINDS,
    NARRATION,
    ing_form,
)
from mmpt.prepare.demo_corpus.world import Performance, Step, World

SECONDS_PER_SENTENCE = 4.0  # of a step that is spoken about
WORDS_PER_S = 2.8
SMALLEST_OFFSET_S = 4.0  # of a step narrated early or late
JITTER_S = 1.0  # of every other step
LATEST_SHARE = 0.98  # of a video that may be filled with speech


@dataclass(frozen=True)
class Caption:
    """A sentence said from `start` to `end` (seconds, two decimals) about performance `about`, or
    None for chat.

    `offset_s` is the signed delay with which the narrator meant to say it.
    """

    start: float
    end: float
    text: str
    about: int | None
    offset_s: float


@dataclass(frozen=True)
class _Sentence:
    at: float
    text: str
    about: int | None = None
    offset_s: float = 0.0


def narrate(
    world: World, performances: Sequence[Performance], num_seconds: int, rng: random.Random
) -> tuple[Caption, ...]:
    """Return the captions of a video; at least one."""
    sentences = [
        sentence
        for place, shown in enumerate(performances)
        if rng.random() >= world.settings.omit
        for sentence in _tell(world, place, shown, rng)
    ]
    share = world.settings.irrelevant
    num_chats = round(len(sentences) * share / (1 - share)) if sentences else 3
    craft = world.steps[performances[0].step].craft
    sentences += _chat(num_chats, craft, num_seconds, rng)
    return _take_turns(sorted(sentences, key=lambda sentence: sentence.at), num_seconds)


def clean_sentence(step: Step, kind: str, rng: random.Random) -> str:
    """Return a sentence that tells `step` as an annotator would."""
    return rng.choice(CLEAN).format(**_slots(step, kind))


def step_label(step: Step) -> str:
    """Return the name of `step`, whatever kind of thing it is done to; no two steps of a craft
    share it.
    """
    return f"{step.do} the {step.thing} with the {step.tool}"


def _slots(step: Step, kind: str) -> dict[str, str]:
    words = {
        "do": step.do,
        "doing": ing_form(step.do),
        "thing": step.thing,
        "tool": step.tool,
        "how": step.how,
    }
    return {**words, "kind": kind}


def _tell(world: World, place: int, shown: Performance, rng: random.Random) -> list[_Sentence]:
    """Sentences about one performance, spread over its time and moved together early or late."""
    if rng.random() < world.settings.misalign:
        offset = rng.choice((-1, 1)) * rng.uniform(SMALLEST_OFFSET_S, world.settings.max_offset)
    else:
        offset = rng.uniform(-JITTER_S, JITTER_S)
    length = shown.end - shown.start
    count = max(1, round(length / SECONDS_PER_SENTENCE))
    slots = _slots(world.steps[shown.step], shown.kind)
    patterns = itertools.islice(itertools.cycle(rng.sample(NARRATION, len(NARRATION))), count)
    return [
        _Sentence(
            shown.start + offset + number * length / count, pattern.format(**slots), place, offset
        )
        for number, pattern in enumerate(patterns)
    ]


def _chat(count: int, craft: int, num_seconds: int, rng: random.Random) -> list[_Sentence]:
    """A greeting, a farewell and chat in between, about the words of the craft but not about what
    is seen.
    """
    words = CRAFTS[craft]
    sentences = []
    for number in range(count):
        if number == 0:
            sentences.append(_Sentence(float("-inf"), rng.choice(GREETINGS)))
        elif number == 1:
            sentences.append(_Sentence(float("inf"), rng.choice(FAREWELLS)))
        else:
            pools = {"do": words.verbs, "thing": words.things, "tool": words.tools, "kind": KINDS}
            text = rng.choice(CHAT).format(
                **{slot: rng.choice(pool) for slot, pool in pools.items()}
            )
            sentences.append(_Sentence(rng.uniform(0, num_seconds), text))
    return sentences


def _take_turns(sentences: Sequence[_Sentence], num_seconds: int) -> tuple[Caption, ...]:
    """Give sorted sentences times inside the video: pushed later by the one before, then earlier by
    the end.
    """
    lengths = [len(sentence.text.split()) / WORDS_PER_S for sentence in sentences]
    pace = min(1.0, LATEST_SHARE * num_seconds / sum(lengths))
    lengths = [length * pace for length in lengths]
    starts, free_from = [], 0.0
    for sentence, length in zip(sentences, lengths, strict=True):
        starts.append(max(free_from, min(sentence.at, num_seconds - length)))
        free_from = starts[-1] + length
    end = float(num_seconds)
    for place in reversed(range(len(starts))):
        starts[place] = min(starts[place], end - lengths[place])
        end = starts[place]
    return tuple(
        Caption(
            _to_cents(start),
            _to_cents(start + length),
            sentence.text,
            sentence.about,
            sentence.offset_s,
        )
        for sentence, start, length in zip(sentences, starts, lengths, strict=True)
    )


def _to_cents(seconds: float) -> float:
    return max(0.0, round(seconds, 2))
