"""The miniature world as an endless data set, drawn while it is read; no files.

Captions are the papers' training data. With `contexts="mixed"` a part of the samples are interleaved contexts instead
(stories with none or all of their pictures, dialogues of some rounds) whose paired picture is the one they lead to:
a language model of two million parameters does not learn to read long contexts from captions alone. Samples then come
in pairs: the second of a caption, of a whole dialogue and of an illustrated story differs from the first in one fact
(in colours that only the earlier pictures tell), since thirty random pictures are told apart without most facts; and
conditioning targets are made of the canonical caption, its things in the order of the words that were read. Stories and
dialogues lead to their picture and do not describe it, so they teach no captioning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from gill.data.bad import BadSample
from gill.data.sources import Example
from gill.errors import UnknownNameError
from gill.flatland.captions import ONE_THING, caption, random_caption, retold
from gill.flatland.dialogues import NUM_ROUNDS, dialogue_about, dialogue_text
from gill.flatland.documents import story_caption
from gill.flatland.neighbours import neighbour, recoloured
from gill.flatland.pictures import draw
from gill.flatland.stories import Story, story
from gill.flatland.world import Scene, item_rng, sample_scene
from gill.types import CaptionRecord, Segment

CONTEXTS = ("mixed", "none")
# Shares of captions, stories and dialogues in "mixed": four fifths of the samples are the papers' own.
_SHARES = (0.8, 0.1, 0.1)
ILLUSTRATED = "5cap4img"
STORY_FORMS = ("1cap", "5cap", ILLUSTRATED)
_STORY_FORM_SHARES = (0.1, 0.35, 0.55)
# Captions that name the second thing first. They are read, and not taught as what to say of a picture: the frozen
# language model tells a picture's things in one order.
_SWAPPED_SHARE = 0.25
# How many rounds of a dialogue are read: mostly all, since only they tell the whole picture.
_ROUNDS = (1, 2, 5, 6, 8, 10, 10, 10)
_NUM_INDEXED = 10**9


class FlatlandSource:
    """Samples of one split, number `index` always the same.

    Args:
        split: "train", "val", "test" or "novel".
        size: how many there are; every number is made when asked for.
        contexts: "mixed" or "none".

    Raises:
        UnknownNameError: another kind of contexts.
    """

    lengths = None  # the layout of long contexts is not the loader's business: rows are packed without pads

    def __init__(self, split: str, size: int, seed: int, contexts: str = "mixed") -> None:
        _require("contexts", contexts, CONTEXTS)
        self.split, self.size, self.seed, self.contexts = split, size, seed, contexts
        self.group_size = 2 if contexts == "mixed" else 1

    def __len__(self) -> int:
        return self.size

    @property
    def bad_rows(self) -> Sequence[BadSample]:
        """None: the world is always well formed."""
        return ()

    def place(self, index: int) -> tuple[str, int]:
        """Where a sample comes from, for messages."""
        return f"flatland/{self.split}", index + 1

    def read(self, index: int) -> Example:
        """One sample."""
        rng = item_rng(self.seed, self.split, "sample", index // self.group_size)
        is_second = index % self.group_size > 0
        kind = rng.choices(("caption", "story", "dialogue"), _SHARES)[0] if self.contexts == "mixed" else "caption"
        if kind == "story":
            return self._example(index, *self._story(rng, is_second))
        if kind == "dialogue":
            return self._example(index, *self._dialogue(rng, is_second))
        scene = sample_scene(rng, self.split)
        if is_second:
            scene = self._neighbour(rng, scene)
        if self.contexts == "none":
            return self._example(index, scene, random_caption(rng, scene), ())
        is_swapped = rng.random() < _SWAPPED_SHARE
        words = caption(scene, rng.randrange(len(ONE_THING)), is_swapped)
        return self._example(index, scene, retold(scene, words), (Segment(text=words),), describes=not is_swapped)

    def _story(self, rng: Random, is_second: bool) -> tuple[Scene, str, tuple[Segment, ...]]:
        """A story in some form; the second one has the same texts and other colours where its pictures are shown."""
        form = rng.choices(STORY_FORMS, _STORY_FORM_SHARES)[0]
        told = self._twins(rng)[is_second] if form == ILLUSTRATED else self._any_story(rng)
        if is_second and form != ILLUSTRATED:
            told = self._any_story(rng)
        return told.scenes[-1], story_caption(told, told.scenes[-1]), story_context(told, form)

    def _twins(self, rng: Random) -> tuple[Story, Story]:
        while (other := recoloured(rng, told := self._any_story(rng), self.split)) is None:
            pass
        return told, other

    def _any_story(self, rng: Random) -> Story:
        return story(self.split, rng.randrange(_NUM_INDEXED), self.seed)

    def _dialogue(self, rng: Random, is_second: bool) -> tuple[Scene, str, tuple[Segment, ...]]:
        """Some rounds; of a whole dialogue the second one is about a scene that differs in one fact."""
        num_rounds = rng.choice(_ROUNDS)
        scene = sample_scene(rng, self.split, num_things=2)
        if is_second:
            is_whole = num_rounds == NUM_ROUNDS
            scene = self._neighbour(rng, scene) if is_whole else sample_scene(rng, self.split, num_things=2)
        words = dialogue_text(dialogue_about(rng, scene).rounds[:num_rounds])
        return scene, retold(scene, words), (Segment(text=words),)

    def _neighbour(self, rng: Random, scene: Scene) -> Scene:
        while (other := neighbour(rng, scene, self.split)).content() == scene.content():
            pass
        return other

    def _example(
        self, index: int, scene: Scene, words: str, context: tuple[Segment, ...], describes: bool = False
    ) -> Example:
        source, line = self.place(index)
        is_caption = describes or not context
        record = CaptionRecord(words, Path(f"{source}/{index}.png"), context, source, line, is_caption)
        return Example(record, draw(scene), tuple(part.image for part in context if part.image is not None))


def story_context(told: Story, form: str) -> tuple[Segment, ...]:
    """What is read before the last picture: one text, all texts, or all texts and the earlier pictures.

    Raises:
        UnknownNameError: `form` is none of `STORY_FORMS`.
    """
    _require("story form", form, STORY_FORMS)
    if form == "1cap":
        return (Segment(text=told.texts[-1]),)
    if form == "5cap":
        return (Segment(text=" ".join(told.texts)),)
    pairs = zip(told.texts[:-1], told.scenes[:-1], strict=True)
    before = [part for text, scene in pairs for part in (Segment(text=text), Segment(image=draw(scene)))]
    return (*before, Segment(text=told.texts[-1]))


def _require(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UnknownNameError(f"unknown {what} {name!r}; known: {', '.join(known)}")
