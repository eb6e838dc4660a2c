"""Five-frame stories. The last caption tells cells only; place, shapes and sizes stand in the earlier texts,
and colours are told by the earlier pictures and by nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from gill.flatland.captions import relation
from gill.flatland.world import (
    CELLS,
    PLACES,
    SHAPES,
    Scene,
    Thing,
    item_rng,
    make_scene,
    random_look,
    random_offset,
    split_of,
)

NAMES = ("ann", "ben", "mia", "tom")
NUM_FRAMES = 5
STAY = ("they play together.", "they rest there.", "they look for a new place to sit.")


@dataclass(frozen=True)
class Story:
    """Five texts and five scenes; text i tells what scene i shows. The last scene is what is asked for."""

    texts: tuple[str, ...]
    scenes: tuple[Scene, ...]


def story(split: str, index: int, seed: int = 0) -> Story:
    """Story number `index` of a split; each of its scenes belongs to that split."""
    rng = item_rng(seed, split, "story", index)
    while (told := _try_story(rng, split)) is None:
        pass
    return told


class _DeadEndError(Exception):
    """No scene of the split continues this story."""


def _try_story(rng: Random, split: str) -> Story | None:
    shape, friend_shape = rng.sample(SHAPES, 2)
    hero, friend = (Thing(*random_look(rng, each), cell="") for each in (shape, friend_shape))
    try:
        scenes = _scenes(rng, split, hero, friend)
    except _DeadEndError:
        return None
    return Story(_texts(rng, scenes, hero, friend), scenes)


def _scenes(rng: Random, split: str, hero: Thing, friend: Thing) -> tuple[Scene, ...]:
    """Alone; in another place; met by a friend; together in new cells; and once more in new cells."""

    def choose(places: tuple[str, ...], allowed: Callable[[Scene], bool], pair: bool) -> Scene:
        things = (hero, friend) if pair else (hero,)
        options = [
            make_scene(place, [replace(thing, cell=cell) for thing, cell in zip(things, cells, strict=True)])
            for place in places
            for cells in _cell_choices(len(things))
        ]
        options = [scene for scene in options if split_of(scene) == split and allowed(scene)]
        if not options:
            raise _DeadEndError
        return rng.choice(options)

    first = choose(PLACES, lambda _: True, pair=False)
    second = choose(tuple(place for place in PLACES if place != first.place), lambda _: True, pair=False)
    home = _cell_of(second, hero)
    third = choose((second.place,), lambda scene: _cell_of(scene, hero) == home, pair=True)
    fourth = choose((second.place, rng.choice(PLACES)), lambda scene: scene.content() != third, pair=True)
    fifth = choose((fourth.place,), lambda scene: scene.content() not in (third, fourth), pair=True)
    return tuple(_with_offsets(rng, scene) for scene in (first, second, third, fourth, fifth))


def _cell_choices(count: int) -> list[tuple[str, ...]]:
    if count == 1:
        return [(cell,) for cell in CELLS]
    return [(one, two) for one in CELLS for two in CELLS if one != two]


def _cell_of(scene: Scene, thing: Thing) -> str:
    return next(other.cell for other in scene.things if other.shape == thing.shape)


def _with_offsets(rng: Random, scene: Scene) -> Scene:
    return replace(scene, things=tuple(replace(thing, offset=random_offset(rng)) for thing in scene.things))


def _texts(rng: Random, scenes: tuple[Scene, ...], hero: Thing, friend: Thing) -> tuple[str, ...]:
    _, second, third, fourth, fifth = scenes
    name = rng.choice(NAMES)
    what, other = f"{hero.size} {hero.shape}", f"{friend.size} {friend.shape}"
    where = relation(_cell_of(third, hero), _cell_of(third, friend))
    cell, friend_cell = _cell_of(fifth, hero), _cell_of(fifth, friend)
    moved = fourth.place != third.place
    return (
        rng.choice((f"{name} has a {what}.", f"this is the {what} of {name}.")),
        rng.choice((f"{name} takes it to the {second.place}.", f"{name} goes with it to the {second.place}.")),
        rng.choice((f"a {other} comes {where}.", f"then it meets a {other}.")),
        f"they all go to the {fourth.place}." if moved else rng.choice(STAY),
        rng.choice(
            (
                f"now it is at the {cell} and its friend is at the {friend_cell}.",
                f"at last it is at the {cell} with its friend {relation(cell, friend_cell)}.",
            )
        ),
    )
