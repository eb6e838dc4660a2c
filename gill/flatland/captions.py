"""Captions: every sentence that tells a scene in full, and the reader that takes it back.

Each (scene content, template, order) gives a different sentence, so the entropy of the grammar is a sum of
logarithms and a sentence has one meaning.
"""

import math
import re
from random import Random

from gill.errors import DataError
from gill.flatland.world import (
    CELLS,
    COLOURS,
    ONE_THING_SHARE,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    make_scene,
    num_contents,
)

THING1, THING2 = "a {size1} {colour1} {shape1}", "a {size2} {colour2} {shape2}"
ONE_THING = (
    THING1 + " at the {cell1} of the {place}.",
    "in the {place} there is " + THING1 + " at the {cell1}.",
    "a picture of the {place} with " + THING1 + " at the {cell1}.",
    "this is the {place}. the {shape1} is at the {cell1}. it is {size1} and {colour1}.",
)
TWO_THINGS = (
    THING1 + " at the {cell1} and " + THING2 + " at the {cell2} of the {place}.",
    "in the {place} there is " + THING1 + " at the {cell1} and " + THING2 + " at the {cell2}.",
    "a picture of the {place} with " + THING1 + " at the {cell1}. {relation} is " + THING2 + ".",
    (
        "this is the {place}. a {shape1} is at the {cell1} and a {shape2} is {relation}. "
        "the {shape1b} is {size1} and {colour1} and the {shape2b} is {size2} and {colour2}."
    ),
)
# Where the second thing is, seen from the first: (columns to the right, rows down).
RELATIONS = {
    (0, -1): "above it",
    (0, 1): "below it",
    (-1, 0): "to its left",
    (1, 0): "to its right",
}
ACROSS = "across from it"


def templates(scene: Scene) -> tuple[str, ...]:
    """The four sentence forms for a scene with this many things."""
    return ONE_THING if len(scene.things) == 1 else TWO_THINGS


def caption(scene: Scene, template: int = 0, swap: bool = False) -> str:
    """The scene in words, colours and cells included.

    Args:
        scene: with one or two things.
        template: 0..3. Form 0 without `swap` is the canonical caption.
        swap: name the second thing first. No effect on a single thing.
    """
    things = scene.things[::-1] if swap else scene.things
    words = {"place": scene.place}
    for number, thing in enumerate(things, start=1):
        words |= {f"{name}{number}": getattr(thing, name) for name in ("shape", "colour", "size", "cell")}
        words[f"shape{number}b"] = thing.shape
    if len(things) == 2:
        words["relation"] = relation(things[0].cell, things[1].cell)
    return templates(scene)[template].format(**words)


def retold(scene: Scene, words: str) -> str:
    """The canonical caption, but its things in the order in which `words` name them; unnamed ones come last."""
    named = [words.find(thing.shape) % (len(words) + 1) for thing in scene.things]  # not found = -1 = the end
    return caption(scene, swap=named != sorted(named))


def all_captions(scene: Scene) -> list[str]:
    """Every caption of a scene: 4 with one thing, 8 with two."""
    return [caption(scene, template, swap) for swap in (False, True)[: len(scene.things)] for template in range(4)]


def random_caption(rng: Random, scene: Scene) -> str:
    """One of `all_captions`, uniformly."""
    return rng.choice(all_captions(scene))


def relation(cell1: str, cell2: str) -> str:
    """Where `cell2` is for someone at `cell1`, in words."""
    index1, index2 = CELLS.index(cell1), CELLS.index(cell2)
    return RELATIONS.get((index2 % 2 - index1 % 2, index2 // 2 - index1 // 2), ACROSS)


def cell_from(cell: str, words: str) -> str | None:
    """The cell that `words` (a relation) points to from `cell`; None where it leaves the picture."""
    return next((other for other in CELLS if other != cell and relation(cell, other) == words), None)


def caption_entropy(num_things: int | None = None) -> float:
    """Entropy in nats of a caption of the world without `novel` pairs: scene, form and order.

    Without `num_things` the number of things is random too, as in `sample_scene`.
    """
    if num_things:
        return math.log(num_contents(num_things)) + math.log(4 * num_things)
    shares = {1: ONE_THING_SHARE, 2: 1 - ONE_THING_SHARE}
    return sum(share * (caption_entropy(count) - math.log(share)) for count, share in shares.items())


def read_caption(text: str) -> Scene:
    """The scene that a caption tells, offsets 0; capitals and extra spaces do not matter.

    Raises:
        DataError: if the text is no caption of this world, with the words that were read.
    """
    sentence = re.sub(r"\s+([.])", r"\1", " ".join(text.lower().split()))
    for pattern in _PATTERNS:
        if match := pattern.fullmatch(sentence):
            return _scene_of(match.groupdict(), sentence)
    raise DataError(f"not a caption of Flatland: {text!r}; it should look like {ONE_THING[0]!r}")


def _scene_of(words: dict[str, str], sentence: str) -> Scene:
    things = [Thing(words["shape1"], words["colour1"], words["size1"], words["cell1"])]
    if "shape2" in words:
        cell = words.get("cell2") or cell_from(words["cell1"], words["relation"])
        repeats_differ = any(words.get(f"shape{n}b", words[f"shape{n}"]) != words[f"shape{n}"] for n in (1, 2))
        if cell is None or cell == words["cell1"] or words["shape1"] == words["shape2"] or repeats_differ:
            raise DataError(f"the caption contradicts itself: {sentence!r}")
        things.append(Thing(words["shape2"], words["colour2"], words["size2"], cell))
    return make_scene(words["place"], things)


def _pattern(template: str) -> re.Pattern[str]:
    """A regular expression that reads what a template writes."""
    words = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "cell": CELLS, "place": PLACES}
    words["relation"] = (*RELATIONS.values(), ACROSS)

    def group(match: re.Match[str]) -> str:
        return f"(?P<{match[1]}>{'|'.join(words[match[1].rstrip('12b')])})"

    return re.compile(re.sub(r"\\{(\w+)\\}", group, re.escape(template)))


_PATTERNS = [_pattern(template) for template in (*ONE_THING, *TWO_THINGS)]
