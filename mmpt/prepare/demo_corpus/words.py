"""The words of the demo corpus: verbs and nouns of four crafts, and patterns of sentences.

Most verbs and nouns belong to one craft. Kinds, manners and a few verbs are shared, so that a step
can only be recognised by its words together. Patterns have slots: {do} {doing} {thing} {tool}
{kind} {how}.
"""

import re
import string
from typing import NamedTuple


class Craft(NamedTuple):
    """A field of related tasks: its verbs, the objects of the verbs, and the tools."""

    verbs: list[str]
    things: list[str]
    tools: list[str]


def _craft(verbs: str, things: str, tools: str) -> Craft:
    """Returns a craft from its words, separated by spaces."""
    return Craft(verbs.split(), things.split(), tools.split())


COOKING = _craft(
    verbs="chop stir pour fry boil knead season mix clean press",
    things="onion carrot batter dough sauce noodle potato mushroom pepper broth dumpling cabbage",
    tools="knife spoon skillet whisk spatula blender",
)
GARDENING = _craft(
    verbs="plant water prune dig rake mulch trim mix clean press",
    things="seedling hedge tomato soil rose compost lettuce shrub bulb lawn cucumber strawberry",
    tools="shovel trowel sprinkler shears bucket wheelbarrow",
)
WOODWORK = _craft(
    verbs="saw sand drill glue paint clamp trim mix clean press",
    things="board shelf drawer panel hinge table cabinet handle bracket plywood dowel frame",
    tools="hammer chisel sander brush router screwdriver",
)
SEWING = _craft(
    verbs="stitch knit fold steam pin dye trim mix clean press",
    things="sleeve collar pocket scarf button ribbon zipper lining curtain quilt jacket sweater",
    tools="needle scissors thimble bobbin hook hoop",
)
CRAFTS = (COOKING, GARDENING, WOODWORK, SEWING)
KINDS = str.split("red green white small large round flat fresh old thick soft striped")
MANNERS = str.split("slowly gently firmly evenly quickly neatly")

# Sentences of an annotator.
CLEAN = (
    "{do} the {kind} {thing} with the {tool}",
    "{do} the {kind} {thing} {how}",
    "use the {tool} to {do} the {kind} {thing} {how}",
)
# Sentences of a narrator about a step.
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
# Sentences of a narrator about a step that do not name it. They contain only words of the other
# patterns, so that the vocabulary does not depend on them.
VAGUE = (
    "Now we do it like this.",
    "Keep going until it looks good.",
    "So here you want to do a little.",
    "Then we are ready for the next time.",
    "This is so good, I like it.",
    "If you like it hot, do this last.",
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
# Sentences of a narrator that are not about a step.
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

# Special tokens with their ids in bert-base-uncased.
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
NUM_SPECIAL = 104  # special and unused tokens
MAX_WHOLE_WORD = 8  # letters; a longer word is split into two pieces


def ing_form(verb: str) -> str:
    """Returns the ing form: "chop" -> "chopping", "glue" -> "gluing", "fry" -> "frying"."""
    if verb.endswith("ye"):
        return f"{verb}ing"
    if verb.endswith("e"):
        return f"{verb[:-1]}ing"
    # A short verb that ends with consonant, vowel, consonant doubles the last letter.
    doubles_last = (
        len(verb) <= 4
        and verb[-1] not in "aeiouwyx"
        and verb[-2] in "aeiou"
        and verb[-3] not in "aeiou"
    )
    if doubles_last:
        return f"{verb}{verb[-1]}ing"
    return f"{verb}ing"


def make_vocabulary() -> list[str]:
    """Returns a word-piece vocabulary in id order. Special tokens have their ids in bert-base.

    Special and unused tokens are followed by punctuation, digits, letters, and then by words in
    alphabetical order. Some words are split into two pieces on purpose (stem and ending, or long
    words in the middle), so that the demo uses sub-words. Any other text can be spelled with single
    letters.
    """
    # Collect the words of the patterns, without their slots, and the words that fill the slots.
    texts = [*CLEAN, *NARRATION, *GREETINGS, *FAREWELLS, *CHAT, *KINDS, *MANNERS]
    for craft in CRAFTS:
        texts += craft.verbs
        texts += map(ing_form, craft.verbs)
        texts += craft.things
        texts += craft.tools
    joined = " ".join(texts).lower()
    without_slots = re.sub(r"\{\w+\}", " ", joined)
    words = set(re.findall(r"[a-z]+", without_slots))
    # Split them into pieces.
    whole = set()
    endings = set()
    for word in words:
        stem, ending = _split(word, words)
        whole.add(stem)
        if ending:
            endings.add(f"##{ending}")
    # List all pieces in the order of their ids.
    special = [f"[unused{number - 1}]" for number in range(NUM_SPECIAL)]
    for number, token in SPECIAL.items():
        special[number] = token
    single = [*string.punctuation, *string.digits, *string.ascii_lowercase]
    letters = string.ascii_lowercase + string.digits
    continued = [f"##{letter}" for letter in letters]
    known = {*special, *single, *continued}
    new_words = sorted(whole - known)
    new_endings = sorted(endings - known)
    return [*special, *single, *continued, *new_words, *new_endings]


def _split(word: str, words: set[str]) -> tuple[str, str]:
    """Splits a word into stem and ending, which is empty if the word stays whole.

    A word is split before its ending (-ing, -ly) if the stem is also a word. Otherwise, a long word
    is split in the middle.

    Args:
        words: all words of the corpus.
    """
    cuts: list[int] = []
    if word.endswith("ing"):
        cuts = [-4, -3]  # with and without a doubled letter
    elif word.endswith("ly"):
        cuts = [-2]
    for cut in cuts:
        if word[:cut] in words:
            return word[:cut], word[cut:]
    if len(word) <= MAX_WHOLE_WORD:
        return word, ""
    middle = len(word) // 2
    return word[:middle], word[middle:]
