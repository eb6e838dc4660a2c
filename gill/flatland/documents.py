"""The world's text without pictures: what the language model is trained on.

A caption in brackets stands where a picture would be: "text (caption) text (caption)". Nothing here is drawn.
"""

from collections.abc import Callable
from random import Random

from gill.flatland.captions import ONE_THING, caption, random_caption
from gill.flatland.dialogues import NUM_ROUNDS, dialogue, dialogue_text
from gill.flatland.stories import NUM_FRAMES, Story, story
from gill.flatland.world import CELLS, Scene, item_rng, sample_scene

OPEN, CLOSE = "(", ")"
# Around listings, so that after an open bracket it is known what follows.
OPEN_LISTING, CLOSE_LISTING = "[", "]"
# Shares of the mixture: descriptions of one scene, stories, dialogues, retellings.
Telling = Callable[[Scene], str]
Mixture = tuple[float, float, float, float]
MIXTURE: Mixture = (0.4, 0.35, 0.25, 0.0)
# Stories of which only the last texts are told: a benchmark may show the last one alone.
TAIL_SHARE = 0.35


def bracket(text: str) -> str:
    """A caption as it stands for a picture."""
    return f"{OPEN} {text} {CLOSE}"


def listing(scene: Scene) -> str:
    """The scene cell by cell in square brackets, equally many words a cell: what is there, or three times the place.

    What a word tells stands at the same word in every listing, as what a linear map makes of a picture does.
    """
    told = []
    for cell in CELLS:
        thing = scene.thing_at(cell)
        told.append(f"{thing.size} {thing.colour} {thing.shape}" if thing else " ".join([scene.place] * 3))
        told.append(cell)
    return f"{OPEN_LISTING} {scene.place} {' '.join(told)} {CLOSE_LISTING}"


def document(
    split: str,
    index: int,
    seed: int = 0,
    repeats: float = 0.0,
    mixture: Mixture = MIXTURE,
    listed: float = 0.0,
) -> str:
    """One training text.

    Args:
        split: whose scenes it tells.
        index: number of the document.
        repeats: chance in 0..1 that it is nothing but one scene told twice, the first time in brackets; a
            curriculum that makes copying from the context learnable.
        mixture: shares of descriptions, stories, dialogues and retellings among the rest.
        listed: chance in 0..1 that the pictures that a story, dialogue or retelling shows are listed cell by cell.
    """
    rng = item_rng(seed, split, "document", index)
    if rng.random() < repeats:
        return repeat_document(rng, sample_scene(rng, split))
    shows = listing if listed and rng.random() < listed else None
    kind = rng.choices(("caption", "story", "dialogue", "retelling"), mixture)[0]
    if kind == "story":
        return story_document(rng, story(split, rng.randrange(10**9), seed), shows)
    if kind == "dialogue":
        return dialogue_document(rng, split, seed, shows)
    scene = sample_scene(rng, split)
    return retelling_document(rng, scene, shows) if kind == "retelling" else caption_document(rng, scene)


def repeat_document(rng: Random, scene: Scene) -> str:
    """One scene told twice, in brackets and then in words, half of the time in the same words."""
    first = random_caption(rng, scene)
    return f"{bracket(first)} {first if rng.random() < 0.5 else random_caption(rng, scene)}"


def caption_document(rng: Random, scene: Scene) -> str:
    """A plain caption, or a caption before, after or between brackets that tell the same scene."""
    words = [random_caption(rng, scene) for _ in range(rng.choice((1, 1, 2, 3)))]
    first_is_picture = rng.random() < 0.5
    return " ".join(
        bracket(text) if (number % 2 == 0) == first_is_picture else text for number, text in enumerate(words)
    )


def retelling_document(rng: Random, scene: Scene, shows: Telling | None = None) -> str:
    """What a captioned picture is: a scene in brackets, told again in any form, its things in the same order.

    The order is kept because telling the things the other way round was not learned from texts like these.

    Args:
        shows: what stands for the picture; None for any caption in brackets.
    """
    swap = shows is None and rng.random() < 0.5
    first, *others = [caption(scene, rng.randrange(len(ONE_THING)), swap) for _ in range(rng.choice((2, 2, 3)))]
    return " ".join([shows(scene) if shows else bracket(first), *others])


def story_document(rng: Random, told: Story, shows: Telling | None = None) -> str:
    """A story, or its end alone, with none, half or all of its pictures, the last one in most."""
    start = rng.randrange(1, NUM_FRAMES) if rng.random() < TAIL_SHARE else 0
    share = rng.choice((0.0, 0.5, 1.0))
    shown = [rng.random() < share for _ in told.scenes[:-1]] + [rng.random() < 0.9]
    return story_text(told, shown, start, shows)


def story_text(told: Story, shown: list[bool], start: int = 0, shows: Telling | None = None) -> str:
    """A story's texts, each followed by its picture in brackets where `shown` says so, the hero named first.

    Args:
        told: the story.
        shown: one for each frame.
        start: first frame that is told, 0 to 4.
        shows: what stands for the pictures before the last; None for captions in brackets.
    """
    parts = []
    for number in range(start, NUM_FRAMES):
        parts.append(told.texts[number])
        if shown[number]:
            scene = told.scenes[number]
            if shows is None or number == NUM_FRAMES - 1:
                parts.append(bracket(story_caption(told, scene)))
            else:
                parts.append(shows(scene))
    return " ".join(parts)


def story_caption(told: Story, scene: Scene) -> str:
    """A caption of one of a story's pictures that names the hero first, as the story does."""
    return caption(scene, swap=scene.things[0].shape != told.scenes[0].things[0].shape)


def dialogue_document(rng: Random, split: str, seed: int, shows: Telling | None = None) -> str:
    """Some rounds of a dialogue, and in most its picture at the start or at the end."""
    asked = dialogue(split, rng.randrange(10**9), seed)
    text = dialogue_text(asked.rounds[: NUM_ROUNDS if rng.random() < 0.5 else rng.randint(1, NUM_ROUNDS)])
    picture = bracket(caption(asked.scene))
    form = rng.random()
    if form < 0.3:
        return f"{shows(asked.scene) if shows else picture}\n{text}"
    return f"{text}\n{picture}" if form < 0.9 else text
