"""Things that are nearly the same: hard negatives, of which a random batch or gallery has too few.

A neighbour of a scene differs from it in one fact or in an exchange of two; a recoloured story has the same texts and
other colours in its pictures, so that only they can tell which is which.
"""

from dataclasses import replace
from random import Random

from gill.flatland.stories import Story
from gill.flatland.world import (
    CELLS,
    COLOURS,
    PLACES,
    Scene,
    Thing,
    make_scene,
    random_look,
    random_offset,
    split_of,
)


def neighbour(rng: Random, scene: Scene, split: str) -> Scene:
    """A scene of the split that differs in one fact, or in an exchange of two."""
    while True:
        changed = _changed(rng, scene)
        if len({thing.shape for thing in changed.things}) == len(changed.things) and split_of(changed) == split:
            return changed


def recoloured(rng: Random, told: Story, split: str) -> Story | None:
    """The same story with another colour for one of its two things; None when no such story belongs to the split."""
    shape = rng.choice(told.scenes[-1].things).shape
    for colour in rng.sample(COLOURS, len(COLOURS)):
        scenes = tuple(_with_colour(scene, shape, colour) for scene in told.scenes)
        if scenes != told.scenes and all(split_of(scene) == split for scene in scenes):
            return Story(told.texts, scenes)
    return None


def _with_colour(scene: Scene, shape: str, colour: str) -> Scene:
    things = tuple(replace(thing, colour=colour) if thing.shape == shape else thing for thing in scene.things)
    return replace(scene, things=things)


def _changed(rng: Random, scene: Scene) -> Scene:
    things = list(scene.things)
    index = rng.randrange(len(things))
    thing = things[index]
    shape, colour, size = random_look(rng)
    free = [cell for cell in CELLS if scene.thing_at(cell) is None]
    kind = rng.choice(("shape", "colour", "size", "cell", "place", "swap"))
    if kind == "place":
        return make_scene(rng.choice(PLACES), _moved(rng, things))
    if kind == "swap" and len(things) == 2:
        name = rng.choice(("colour", "shape", "size", "cell"))
        one, two = things
        things = [replace(one, **{name: getattr(two, name)}), replace(two, **{name: getattr(one, name)})]
        return make_scene(scene.place, _moved(rng, things))
    changes = {
        "shape": replace(thing, shape=shape),
        "colour": replace(thing, colour=colour),
        "size": replace(thing, size=size),
        "cell": replace(thing, cell=rng.choice(free)),
    }
    things[index] = changes.get(kind, changes["colour"])
    return make_scene(scene.place, _moved(rng, things))


def _moved(rng: Random, things: list[Thing]) -> list[Thing]:
    return [replace(thing, offset=random_offset(rng)) for thing in things]
