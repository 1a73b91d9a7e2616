"""The words of the demo corpus: what is done with what in four crafts, and the sentences that say
it or chat about it.

Verbs and most nouns belong to one craft; qualifiers, manners and a few verbs are shared, so that a
step is known only from its words together. Sentences have slots: {do} {doing} {thing} {tool} {kind}
{how}.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Craft:
    """A field of related tasks: its verbs, the things they are done to, and the tools."""

    verbs: tuple[str, ...]
    things: tuple[str, ...]
    tools: tuple[str, ...]


def _craft(verbs: str, things: str, tools: str) -> Craft:
    return Craft(tuple(verbs.split()), tuple(things.split()), tuple(tools.split()))


CRAFTS = (
    _craft(
        "chop stir pour fry boil knead season mix clean press",
        "onion carrot batter dough sauce noodle potato mushroom pepper broth dumpling cabbage",
        "knife spoon skillet whisk spatula blender",
    ),
    _craft(
        "plant water prune dig rake mulch trim mix clean press",
        "seedling hedge tomato soil rose compost lettuce shrub bulb lawn cucumber strawberry",
        "shovel trowel sprinkler shears bucket wheelbarrow",
    ),
    _craft(
        "saw sand drill glue paint clamp trim mix clean press",
        "board shelf drawer panel hinge table cabinet handle bracket plywood dowel frame",
        "hammer chisel sander brush router screwdriver",
    ),
    _craft(
        "stitch knit fold steam pin dye trim mix clean press",
        "sleeve collar pocket scarf button ribbon zipper lining curtain quilt jacket sweater",
        "needle scissors thimble bobbin hook hoop",
    ),
)
KINDS = (
    "red",
    "green",
    "white",
    "small",
    "large",
    "round",
    "flat",
    "fresh",
    "old",
    "thick",
    "soft",
    "striped",
)
MANNERS = ("slowly", "gently", "firmly", "evenly", "quickly", "neatly")

CLEAN = (
    "{do} the {kind} {thing} with the {tool}",
    "{do} the {kind} {thing} {how}",
    "use the {tool} to {do} the {kind} {thing} {how}",
)
NARRATION = (
    "Now {do} the {kind} {thing} with the {tool}.",
    "So we are going to {do} the {thing}, nice and {how}.",
    "I am {doing} the {kind} {thing} right here.",
    "Take the {tool} and {do} it {how}.",
    "Use the {tool} for the {kind} {thing}.",
    "You want to {do} the {kind} {thing} {how}.",
    "Here is our {kind} {thing}, ready for the {tool}.",
    "Keep {doing} the {thing} until it looks good.",
    "Then we {do} this {kind} {thing} a little.",
)
GREETINGS = (
    "Hello everyone and welcome back to my channel.",
    "Hi guys, thanks for stopping by today.",
    "Good morning friends, I am so happy to see you.",
)
FAREWELLS = (
    "Please subscribe and hit the like button.",
    "Thanks for watching and see you next time.",
    "Let me know in the comments what you think.",
)
CHAT = (
    "My grandmother always had a {thing} at home.",
    "You can buy a good {tool} in any store.",
    "I got this {tool} from a friend last year.",
    "The last time I tried this it was a mess.",
    "My kids love a {kind} {thing}.",
    "By the way the link is in the description.",
    "It is really hot in here today.",
    "Someone asked me about the {thing} in the comments.",
    "I know some people like to {do} it, but I never do.",
    "That music you hear is my neighbor.",
    "We moved into this house two years ago.",
    "Do not worry if you are a beginner.",
)


def ing_form(verb: str) -> str:
    """Return `verb` + ing: "chop" -> "chopping", "glue" -> "gluing", "fry" -> "frying"."""
    if verb.endswith("e"):
        return (verb if verb.endswith("ye") else verb[:-1]) + "ing"
    short = (
        len(verb) <= 4
        and verb[-1] not in "aeiouwyx"
        and verb[-2] in "aeiou"
        and verb[-3] not in "aeiou"
    )
    return verb + (verb[-1] if short else "") + "ing"


def all_sentences() -> list[str]:
    """Return text in which every word that can ever be said occurs: all patterns and all words for
    their slots.
    """
    patterns = [*CLEAN, *NARRATION, *GREETINGS, *FAREWELLS, *CHAT]
    spoken = [*KINDS, *MANNERS]
    for craft in CRAFTS:
        spoken += [*craft.verbs, *map(ing_form, craft.verbs), *craft.things, *craft.tools]
    return [re.sub(r"\{\w+\}", " ", pattern) for pattern in patterns] + spoken
