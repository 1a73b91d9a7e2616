"""The words of the demo corpus: what is done with what in four crafts, and the sentences that say
it or chat about it.

Verbs and most nouns belong to one craft; qualifiers, manners and a few verbs are shared, so that a
step is known only from its words together. Sentences have slots: {do} {doing} {thing} {tool} {kind}
{how}.
"""

import re
import string
from typing import NamedTuple


class Craft(NamedTuple):
    """A field of related tasks: its verbs, the things they are done to, and the tools."""

    verbs: list[str]
    things: list[str]
    tools: list[str]


_CRAFTS = (
    (
        "chop stir pour fry boil knead season mix clean press",
        "onion carrot batter dough sauce noodle potato mushroom pepper broth dumpling cabbage",
        "knife spoon skillet whisk spatula blender",
    ),
    (
        "plant water prune dig rake mulch trim mix clean press",
        "seedling hedge tomato soil rose compost lettuce shrub bulb lawn cucumber strawberry",
        "shovel trowel sprinkler shears bucket wheelbarrow",
    ),
    (
        "saw sand drill glue paint clamp trim mix clean press",
        "board shelf drawer panel hinge table cabinet handle bracket plywood dowel frame",
        "hammer chisel sander brush router screwdriver",
    ),
    (
        "stitch knit fold steam pin dye trim mix clean press",
        "sleeve collar pocket scarf button ribbon zipper lining curtain quilt jacket sweater",
        "needle scissors thimble bobbin hook hoop",
    ),
)
CRAFTS = [Craft(*map(str.split, texts)) for texts in _CRAFTS]
KINDS = str.split("red green white small large round flat fresh old thick soft striped")
MANNERS = str.split("slowly gently firmly evenly quickly neatly")

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

# Ids of bert-base-uncased.
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
LONGEST_WHOLE_WORD = 8  # letters


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


def make_vocabulary() -> list[str]:
    """Returns a word-piece vocabulary in id order, with special tokens where bert-base has them.

    After special and unused tokens come punctuation, digits, letters, then words by alphabet.
    Rare-looking words are kept in two pieces on purpose (stem + ending, or long words cut in the
    middle), so that the demo exercises sub-words. With single letters any other text can be
    spelled.
    """
    spoken = [*CLEAN, *NARRATION, *GREETINGS, *FAREWELLS, *CHAT, *KINDS, *MANNERS]
    for craft in CRAFTS:
        spoken += [*craft.verbs, *map(ing_form, craft.verbs), *craft.things, *craft.tools]
    text = re.sub(r"\{\w+\}", " ", " ".join(spoken)).lower()
    words = set(re.findall(r"[a-z]+", text))
    whole, endings = set(), set()
    for word in words:
        stem, ending = _split(word, words)
        whole.add(stem)
        endings |= {f"##{ending}"} if ending else set()
    special = [SPECIAL.get(place, f"[unused{place - 1}]") for place in range(104)]
    single = [*string.punctuation, *string.digits, *string.ascii_lowercase]
    continued = [f"##{letter}" for letter in (*string.ascii_lowercase, *string.digits)]
    known = {*special, *single, *continued}
    return [*special, *single, *continued, *sorted(whole - known), *sorted(endings - known)]


def _split(word: str, words: set[str]) -> tuple[str, str]:
    """Returns (stem, ending): at an ending whose stem is a word too, else in the middle of a long
    word, else whole.
    """
    cuts = [-4, -3] if word.endswith("ing") else [-2] if word.endswith("ly") else []
    for cut in cuts:
        if word[:cut] in words:
            return word[:cut], word[cut:]
    middle = len(word) // 2 if len(word) > LONGEST_WHOLE_WORD else len(word)
    return word[:middle], word[middle:]
