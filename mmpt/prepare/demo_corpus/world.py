"""The world of the demo corpus: steps with their words and looks, and tasks as lists of steps.

Every word is a random direction in a latent space of 64 dimensions, which is embedded in the 512
feature dimensions. The prototype of a step, which its seconds look like, is built from its words:

    prototype = normalise(verb + thing + tool / 2 + manner / 2 + kind * strength)

Therefore a model that learns a word in one step also recognises it in other steps, and steps with
common words look similar. Noise is drawn in the same 64 dimensions, so it is hard to filter out.

Legend: L latent size (64), E feature size (512), W words, K backgrounds.
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
STEPS_PER_TASK = (6, 9)  # smallest and largest number
# Share of a task's steps that the previous task of its craft also has.
SHARED_STEPS = 0.5
KINDS_PER_STEP = (4, 8)  # smallest and largest number
WORD_WEIGHTS = {"do": 1.0, "thing": 1.0, "tool": 0.5, "how": 0.5}


class Step(NamedTuple):
    """One step of a task, described by the words that fill the slots of sentences."""

    craft: int
    """Position in `CRAFTS`."""
    do: str
    thing: str
    tool: str
    how: str
    kinds: list[str]
    """The kinds of thing that it may be performed with."""

    def fill(self, pattern: str, kind: str) -> str:
        """Returns a sentence about this step, performed with a thing of `kind`.

        Args:
            pattern: a sentence with slots, from `words`.
        """
        return pattern.format(
            do=self.do,
            doing=ing_form(self.do),
            thing=self.thing,
            tool=self.tool,
            how=self.how,
            kind=kind,
        )


class Performance(NamedTuple):
    """A step that a video shows, from second `start` to second `end` (exclusive)."""

    step: int
    kind: str
    start: int
    end: int


class World(NamedTuple):
    """The steps, the tasks, and all directions in feature space.

    Attributes:
        settings: the settings of the corpus.
        steps: all steps.
        tasks: the steps of every task, as positions in `steps`, in the order of performance.
        looks: word -> unit vector, float64 [L].
        backgrounds: unit vectors of seconds without a step, float64 [K, L].
        basis: orthonormal rows that embed the latent space, float64 [L, E].
    """

    settings: CorpusSettings
    steps: tuple[Step, ...]
    tasks: tuple[tuple[int, ...], ...]
    looks: dict[str, np.ndarray]
    backgrounds: np.ndarray
    basis: np.ndarray

    def prototype(self, step: int, kind: str) -> np.ndarray:
        """Returns the look of a step with a thing of `kind`, a unit vector, float64 [L]."""
        words = self.steps[step]
        look_L = self.settings.kind_strength * self.looks[kind]
        for slot, weight in WORD_WEIGHTS.items():
            word = getattr(words, slot)
            look_L = look_L + weight * self.looks[word]
        return look_L / np.linalg.norm(look_L)


def make_world(settings: CorpusSettings) -> World:
    """Returns the world of a corpus. Steps, tasks and directions depend on the seed only."""
    world_seed = stable_seed("world", settings.seed)
    steps, tasks = _draw_tasks(settings.num_tasks, random.Random(world_seed))
    words = _distinct_words()
    looks_seed = stable_seed("looks", settings.seed)
    generator = np.random.default_rng(looks_seed)
    looks_WL = _draw_unit_rows(generator, len(words))
    # The columns of the Q factor of a random matrix are random orthonormal vectors.
    gaussian_EL = generator.standard_normal((FEATURE_SIZE, LATENT_SIZE))
    basis_EL, _ = np.linalg.qr(gaussian_EL)
    backgrounds_KL = _draw_unit_rows(generator, NUM_BACKGROUNDS)
    return World(
        settings=settings,
        steps=tuple(steps),
        tasks=tuple(tasks),
        looks=dict(zip(words, looks_WL, strict=True)),
        backgrounds=backgrounds_KL,
        basis=np.ascontiguousarray(basis_EL.T),
    )


def _distinct_words() -> list[str]:
    """Returns every word that has a look, once. Crafts share some words."""
    words: list[str] = []
    for craft in CRAFTS:
        words += craft.verbs
        words += craft.things
        words += craft.tools
    words += KINDS
    words += MANNERS
    return list(dict.fromkeys(words))


def _draw_unit_rows(generator: np.random.Generator, num_rows: int) -> np.ndarray:
    """Returns random directions in the latent space, float64 [num_rows, L] with L2 norm 1."""
    rows = generator.standard_normal((num_rows, LATENT_SIZE))
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / norms


def _draw_tasks(
    num_tasks: int, rng: random.Random
) -> tuple[list[Step], list[tuple[int, ...]]]:
    """Draws the steps and tasks. Crafts take turns.

    Half of the steps of a task are taken from the previous task of the same craft, in another
    order. Single steps therefore do not identify a task.
    """
    num_crafts = len(CRAFTS)
    steps: list[Step] = []
    tasks: list[tuple[int, ...]] = []
    unused = [_all_steps(craft, rng) for craft in range(num_crafts)]
    for task in range(num_tasks):
        craft = task % num_crafts
        length = rng.randint(*STEPS_PER_TASK)
        # Take steps of the previous task of this craft, if there is one.
        previous: tuple[int, ...] = ()
        if task >= num_crafts:
            previous = tasks[task - num_crafts]
        num_shared = min(len(previous), round(SHARED_STEPS * length))
        chosen = rng.sample(previous, num_shared)
        # The other steps are new.
        while len(chosen) < length:
            chosen.append(len(steps))
            steps.append(next(unused[craft]))
        rng.shuffle(chosen)
        tasks.append(tuple(chosen))
    return steps, tasks


def _all_steps(craft: int, rng: random.Random) -> Iterator[Step]:
    """Yields the steps of a craft in random order. Every pair of verb and thing comes once."""
    words = CRAFTS[craft]
    pairs = list(itertools.product(words.verbs, words.things))
    for do, thing in rng.sample(pairs, len(pairs)):
        num_kinds = rng.randint(*KINDS_PER_STEP)
        kinds = rng.sample(KINDS, num_kinds)
        tool = rng.choice(words.tools)
        how = rng.choice(MANNERS)
        yield Step(craft, do, thing, tool, how, kinds)
