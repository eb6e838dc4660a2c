"""The miniature world: what a scene is, how scenes are drawn at random, and which split owns each.

A scene is a place with one or two things. A thing has a shape, a colour, a size, a cell of the 2x2 grid
and a small offset in pixels. Everything is a function of a seed: item `i` of a split comes from
`item_rng(seed, split, kind, i)`, so any item can be made alone, in any order, on any machine.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from gill.errors import ConfigError

PLACES = ("beach", "field", "sea", "snow", "desert", "room")
SHAPES = ("ball", "box", "cone", "star", "heart", "ring", "moon", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SIZES = ("small", "big")
CELLS = ("top left", "top right", "bottom left", "bottom right")
# Offsets are whole latent pixels of an autoencoder that shrinks by 4: every thing is drawn in the same phase.
OFFSETS = (-4, 0, 4)
SPLITS = ("train", "val", "test", "novel")
# A tenth of the shape-colour pairs, no shape and no colour twice: seen only in the split `novel`.
NOVEL_PAIRS = frozenset(
    {
        ("ball", "purple"),
        ("box", "yellow"),
        ("star", "blue"),
        ("heart", "green"),
        ("ring", "red"),
        ("moon", "orange"),
    }
)
ONE_THING_SHARE = 1 / 3


@dataclass(frozen=True)
class Thing:
    """One drawn object. `offset` is (right, down) in pixels from the centre of its cell, each -4, 0 or 4."""

    shape: str
    colour: str
    size: str
    cell: str
    offset: tuple[int, int] = (0, 0)

    @property
    def is_novel(self) -> bool:
        """Whether this shape never has this colour in training."""
        return (self.shape, self.colour) in NOVEL_PAIRS


@dataclass(frozen=True)
class Scene:
    """A place with its things, sorted by cell; two things differ in shape and in cell."""

    place: str
    things: tuple[Thing, ...]

    def content(self) -> "Scene":
        """The scene without offsets: what a caption can say, and what a split owns."""
        return replace(self, things=tuple(replace(thing, offset=(0, 0)) for thing in self.things))

    def thing_at(self, cell: str) -> Thing | None:
        """The thing in `cell`, or None where the cell is empty."""
        return next((thing for thing in self.things if thing.cell == cell), None)


def make_scene(place: str, things: list[Thing] | tuple[Thing, ...]) -> Scene:
    """A scene with its things in the order of the cells."""
    return Scene(place, tuple(sorted(things, key=lambda thing: CELLS.index(thing.cell))))


def split_of(scene: Scene) -> str:
    """The one split that owns a scene, whatever its offsets: `novel`, or 8 : 1 : 1 by a hash of the content."""
    if any(thing.is_novel for thing in scene.things):
        return "novel"
    words = "|".join(f"{thing.cell},{thing.size},{thing.colour},{thing.shape}" for thing in scene.things)
    bucket = hashlib.sha256(f"{scene.place}|{words}".encode()).digest()[0] % 10
    return "val" if bucket == 8 else "test" if bucket == 9 else "train"


def check_split(split: str) -> str:
    """Return `split`, or raise ConfigError naming the known ones."""
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; known splits: {', '.join(SPLITS)}")
    return split


def item_rng(seed: int, split: str, kind: str, index: int) -> Random:
    """The random numbers of one item: equal on every machine, independent of all other items."""
    return Random(f"flatland/{seed}/{check_split(split)}/{kind}/{index}")


def random_offset(rng: Random) -> tuple[int, int]:
    """One of the nine offsets."""
    return rng.choice(OFFSETS), rng.choice(OFFSETS)


def random_look(rng: Random, shape: str | None = None) -> tuple[str, str, str]:
    """A random (shape, colour, size); with `shape` given, only the rest is random."""
    return shape or rng.choice(SHAPES), rng.choice(COLOURS), rng.choice(SIZES)


def random_scene(rng: Random, num_things: int) -> Scene:
    """Any scene with `num_things` (1 or 2) things, uniformly."""
    cells, shapes = rng.sample(CELLS, num_things), rng.sample(SHAPES, num_things)
    looks = [random_look(rng, shape) for shape in shapes]
    things = [Thing(*look, cell, random_offset(rng)) for look, cell in zip(looks, cells, strict=True)]
    return make_scene(rng.choice(PLACES), things)


def sample_scene(rng: Random, split: str, num_things: int | None = None) -> Scene:
    """A random scene of one split; without `num_things`, a third of the scenes have one thing, the rest two."""
    count = num_things or (1 if rng.random() < ONE_THING_SHARE else 2)
    while split_of(scene := random_scene(rng, count)) != split:
        pass
    return scene


def scenes(split: str, size: int, seed: int = 0) -> Iterator[Scene]:
    """Stream `size` scenes of a split, repeats possible.

    Raises:
        ConfigError: on an unknown split or a size below 1.
    """
    check_split(split)
    if size < 1:
        raise ConfigError(f"size must be at least 1, got {size}")
    return (sample_scene(item_rng(seed, split, "scene", index), split) for index in range(size))


def distinct_scenes(split: str, size: int, seed: int = 0, num_things: int | None = None) -> list[Scene]:
    """`size` scenes of a split that all differ in content; a gallery for retrieval."""
    found: dict[Scene, Scene] = {}
    for index in itertools.count():
        scene = sample_scene(item_rng(seed, split, "distinct", index), split, num_things)
        found.setdefault(scene.content(), scene)
        if len(found) == size:
            return list(found.values())
        if index > 100 * size + 1000:
            raise ConfigError(f"split {split!r} has too few distinct scenes for a gallery of {size}")
    raise AssertionError("unreachable")


def num_contents(num_things: int) -> int:
    """Number of scene contents without `novel` pairs, over train, val and test together."""
    looks = [sum((shape, colour) not in NOVEL_PAIRS for colour in COLOURS) * len(SIZES) for shape in SHAPES]
    cells = math.comb(len(CELLS), num_things)
    if num_things == 1:
        return len(PLACES) * cells * sum(looks)
    ordered_pairs = sum(looks) ** 2 - sum(count**2 for count in looks)
    return len(PLACES) * cells * ordered_pairs
