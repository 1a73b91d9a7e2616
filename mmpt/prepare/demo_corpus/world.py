"""What the demo corpus knows before any video is made: steps with words and looks, and tasks as
ordered lists of steps.

A look is built from its words: prototype = normalise(verb + thing + tool/2 + manner/2 + kind *
strength), every word being a random direction of a 64-d space that is embedded in the 512 feature
dimensions. So what is learned about a word in one step helps with every other one, steps that share
words look alike, and noise drawn in the same 64 dimensions is hard to filter out.

Legend: L latent size (64), E feature size (512).
"""

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.prepare.demo_corpus.words import CRAFTS, KINDS, MANNERS, ing_form
from mmpt.utils.rng import stable_seed

LATENT_SIZE = 64
FEATURE_SIZE = 512
NUM_BACKGROUNDS = 4
STEPS_PER_TASK = (6, 9)  # smallest and largest
SHARED_STEPS = 0.5  # of a task's steps, those taken from the task before it
KINDS_PER_STEP = (4, 8)  # smallest and largest
WORD_WEIGHTS = {"do": 1.0, "thing": 1.0, "tool": 0.5, "how": 0.5}


class Step(NamedTuple):
    """One step of a task: slot -> word, and the kinds of thing that it is seen with."""

    craft: int
    do: str
    thing: str
    tool: str
    how: str
    kinds: list[str]

    def say(self, pattern: str, kind: str) -> str:
        """Returns a pattern of `words` about this step, done to a thing of `kind`."""
        return pattern.format(**self._asdict(), doing=ing_form(self.do), kind=kind)


class Performance(NamedTuple):
    """A step shown from second `start` to second `end` (exclusive), with a thing of `kind`."""

    step: int
    kind: str
    start: int
    end: int


class World(NamedTuple):
    """The steps, the tasks and every direction in feature space.

    Attributes:
        tasks: for every task, its steps as positions in `steps`, in the order in which they are
            performed.
        looks: word -> unit vector float64 [L].
        backgrounds: float64 [K, L], unit rows.
        basis: float64 [L, E], orthonormal rows.
    """

    settings: CorpusSettings
    steps: tuple[Step, ...]
    tasks: tuple[tuple[int, ...], ...]
    looks: dict[str, np.ndarray]
    backgrounds: np.ndarray
    basis: np.ndarray

    def prototype(self, step: int, kind: str) -> np.ndarray:
        """Return the unit vector float64 [L] that `step` looks like when its thing is of `kind`."""
        words = self.steps[step]
        look_L = self.settings.kind_strength * self.looks[kind]
        for slot, weight in WORD_WEIGHTS.items():
            look_L = look_L + weight * self.looks[getattr(words, slot)]
        return look_L / np.linalg.norm(look_L)


def make_world(settings: CorpusSettings) -> World:
    """Draw the steps, tasks and directions of a corpus from `settings.seed` alone."""
    rng = random.Random(stable_seed("world", settings.seed))
    generator = np.random.default_rng(stable_seed("looks", settings.seed))
    steps, tasks = _draw_tasks(settings.num_tasks, rng)
    words = [word for craft in CRAFTS for word in (*craft.verbs, *craft.things, *craft.tools)]
    words = list(dict.fromkeys([*words, *KINDS, *MANNERS]))
    looks_WL = _unit_rows(generator.standard_normal((len(words), LATENT_SIZE)))
    basis_EL, _ = np.linalg.qr(generator.standard_normal((FEATURE_SIZE, LATENT_SIZE)))
    return World(
        settings=settings,
        steps=tuple(steps),
        tasks=tuple(tasks),
        looks=dict(zip(words, looks_WL, strict=True)),
        backgrounds=_unit_rows(generator.standard_normal((NUM_BACKGROUNDS, LATENT_SIZE))),
        basis=np.ascontiguousarray(basis_EL.T),
    )


def _draw_tasks(num_tasks: int, rng: random.Random) -> tuple[list[Step], list[tuple[int, ...]]]:
    """Draw tasks craft by craft; half the steps of each come from the craft's task before it, in
    another order.
    """
    steps: list[Step] = []
    tasks: list[tuple[int, ...]] = []
    unused = [_all_steps(craft, rng) for craft in range(len(CRAFTS))]
    for task in range(num_tasks):
        craft = task % len(CRAFTS)
        length = rng.randint(*STEPS_PER_TASK)
        before = tasks[task - len(CRAFTS)] if task >= len(CRAFTS) else ()
        chosen = rng.sample(before, min(len(before), round(SHARED_STEPS * length)))
        while len(chosen) < length:
            chosen.append(len(steps))
            steps.append(next(unused[craft]))
        rng.shuffle(chosen)
        tasks.append(tuple(chosen))
    return steps, tasks


def _all_steps(craft: int, rng: random.Random) -> Iterator[Step]:
    """Yield the steps of a craft in random order: every pair of verb and thing once."""
    words = CRAFTS[craft]
    pairs = list(itertools.product(words.verbs, words.things))
    for do, thing in rng.sample(pairs, len(pairs)):
        kinds = rng.sample(KINDS, rng.randint(*KINDS_PER_STEP))
        yield Step(craft, do, thing, rng.choice(words.tools), rng.choice(MANNERS), kinds)


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
