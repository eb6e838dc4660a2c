"""Ten rounds of questions and answers about one picture, which pin its scene down round by round."""

from dataclasses import dataclass
from random import Random

from gill.flatland.world import (
    CELLS,
    COLOURS,
    NOVEL_PAIRS,
    PLACES,
    SHAPES,
    Scene,
    Thing,
    item_rng,
    sample_scene,
)

NUM_ROUNDS = 10


@dataclass(frozen=True)
class Round:
    """One question (without its question mark) and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Dialogue:
    """A picture of two things, a caption that tells little, and ten rounds."""

    scene: Scene
    caption: str
    rounds: tuple[Round, ...]


def dialogue(split: str, index: int, seed: int = 0) -> Dialogue:
    """Dialogue number `index` of a split. The first two rounds ask what the things are; the rest is shuffled."""
    rng = item_rng(seed, split, "dialogue", index)
    return dialogue_about(rng, sample_scene(rng, split, num_things=2))


def dialogue_about(rng: Random, scene: Scene) -> Dialogue:
    """A dialogue about a scene of two things."""
    opening = [Round(f"what is at the {thing.cell}", f"a {thing.shape}") for thing in scene.things]
    rest = _about_scene(rng, scene) + [each for thing in scene.things for each in _about_thing(thing)]
    rng.shuffle(opening)
    rng.shuffle(rest)
    return Dialogue(scene, "a picture with two things.", tuple(opening + rest))


def dialogue_text(rounds: tuple[Round, ...]) -> str:
    """The rounds as the papers feed them to the model: "Q: ...?" and "A: ..." lines."""
    return "\n".join(f"Q: {each.question}?\nA: {each.answer}" for each in rounds)


def _about_thing(thing: Thing) -> list[Round]:
    sure = "yes" if thing.size == "big" else "no"
    return [
        Round(f"what colour is the {thing.shape}", f"the {thing.shape} is {thing.colour}"),
        Round(f"is the {thing.shape} big", f"{sure}, the {thing.shape} is {thing.size}"),
    ]


def _about_scene(rng: Random, scene: Scene) -> list[Round]:
    guess = scene.place if rng.random() < 0.5 else rng.choice([place for place in PLACES if place != scene.place])
    shape = rng.choice(SHAPES)
    empty = rng.choice([cell for cell in CELLS if scene.thing_at(cell) is None])
    return [
        Round("where is it", f"it is the {scene.place}"),
        Round(f"is it the {guess}", _place_answer(guess, guess == scene.place)),
        Round(f"is there a {shape}", _shape_answer(shape, any(thing.shape == shape for thing in scene.things))),
        Round(f"what is at the {empty}", "nothing"),
    ]


def _place_answer(place: str, right: bool) -> str:
    return f"yes, it is the {place}" if right else f"no, it is not the {place}"


def _shape_answer(shape: str, right: bool) -> str:
    return f"yes, there is a {shape}" if right else f"no, there is no {shape}"


def all_answers() -> list[str]:
    """Every answer of the world, in a fixed order; more than a hundred."""
    answers = ["nothing"]
    answers += [f"a {shape}" for shape in SHAPES]
    answers += [f"the {s} is {c}" for s in SHAPES for c in COLOURS if (s, c) not in NOVEL_PAIRS]
    answers += [answer for s in SHAPES for answer in (f"yes, the {s} is big", f"no, the {s} is small")]
    answers += [f"it is the {place}" for place in PLACES]
    answers += [_place_answer(place, right) for place in PLACES for right in (True, False)]
    answers += [_shape_answer(shape, right) for shape in SHAPES for right in (True, False)]
    return answers
