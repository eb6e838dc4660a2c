"""The judge: reads the contents of a picture from its pixels, without any network.

It knows how the world draws (backgrounds and shapes) and nothing about the scene. A cell holds a thing where enough
pixels differ from the background; its shape and size are the template with the greatest overlap, its colour the
commonest nearest colour inside that template.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from gill.errors import DataError
from gill.flatland.pictures import (
    PICTURE_SIZE,
    RGB,
    SPRITE_SIZE,
    background,
    cell_centre,
    shape_masks,
)
from gill.flatland.world import CELLS, COLOURS, PLACES, SHAPES, SIZES, Scene, Thing, make_scene

# Distance in RGB from which a pixel belongs to a thing: above noise of sigma 8, below the least contrast.
FOREGROUND_DISTANCE = 42.0
MIN_THING_PIXELS = 36
MAX_SHIFT = 5


@dataclass(frozen=True)
class Marks:
    """How one picture agrees with the scene it should show; each a fraction in 0..1 over the true things.

    Position counts: a thing is right only in its own cell. `cells` is 1 where exactly the true cells are occupied;
    a thing too many makes `cells` and `whole` wrong. `whole` is 1 where everything is right.
    """

    place: float
    cells: float
    shape: float
    colour: float
    size: float
    shape_colour_cell: float
    whole: float


def read_picture(picture: Image.Image | np.ndarray) -> Scene:
    """What a picture shows.

    Args:
        picture: RGB image, or uint8[64, 64, 3]; other sizes are resized to 64x64.

    Returns:
        The scene. It may have no thing, or more than two: the judge reports what it sees.

    Raises:
        DataError: if the array is not a picture.
    """
    pixels = _as_pixels(picture)
    place = _read_place(pixels)
    distance = np.linalg.norm(pixels - background(place), axis=2)
    seen = (_read_cell(pixels, distance, cell) for cell in CELLS)
    return make_scene(place, [thing for thing in seen if thing is not None])


def _as_pixels(picture: Image.Image | np.ndarray) -> np.ndarray:
    """float32[64, 64, 3] in 0..255."""
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise DataError(f"a picture is uint8[height, width, 3], got {picture.dtype}{list(picture.shape)}")
        picture = Image.fromarray(picture)
    picture = picture.convert("RGB")
    if picture.size != (PICTURE_SIZE, PICTURE_SIZE):
        picture = picture.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BOX)
    return np.asarray(picture, np.float32)


def _read_place(pixels: np.ndarray) -> str:
    """The background with the smallest median distance: things cover less than half of a picture."""
    return min(PLACES, key=lambda place: float(np.median(abs(pixels - background(place)).sum(axis=2))))


def _read_cell(pixels: np.ndarray, distance: np.ndarray, cell: str) -> Thing | None:
    x, y = cell_centre(cell)
    window = np.s_[y - 16 : y + 16, x - 16 : x + 16]
    covered = distance[window] > FOREGROUND_DISTANCE
    if covered.sum() < MIN_THING_PIXELS:
        return None
    masks, meanings = _templates()
    overlap = masks @ covered.reshape(-1).astype(np.float32)
    scores = overlap / (masks.sum(axis=1) + covered.sum() - overlap)
    best = int(scores.argmax())
    shape, size, offset = meanings[best]
    colour = _read_colour(pixels[window], _inner_templates()[best].reshape(32, 32))
    return Thing(shape, colour, size, cell, offset)


def _read_colour(pixels: np.ndarray, inside: np.ndarray) -> str:
    """The colour that most pixels inside the outline are nearest to."""
    palette = np.array([RGB[colour] for colour in COLOURS], np.float32)
    chosen = pixels[inside > 0.99]
    nearest = np.linalg.norm(chosen[:, None] - palette, axis=2).argmin(axis=1)
    return COLOURS[int(np.bincount(nearest, minlength=len(COLOURS)).argmax())]


@cache
def _templates() -> tuple[np.ndarray, list[tuple[str, str, tuple[int, int]]]]:
    """float32[M, 1024] masks of every shape, size and shift inside a 32x32 cell, and what each means."""
    meanings = [
        (shape, size, (dx, dy))
        for shape in SHAPES
        for size in SIZES
        for dy in range(-MAX_SHIFT, MAX_SHIFT + 1)
        for dx in range(-MAX_SHIFT, MAX_SHIFT + 1)
    ]
    return np.stack([_place_mask(shape_masks(s, z)[0] > 0.5, at) for s, z, at in meanings]), meanings


@cache
def _inner_templates() -> np.ndarray:
    """float32[M, 1024]: the same without the outline."""
    return np.stack([_place_mask(shape_masks(s, z)[1] > 0.99, at) for s, z, at in _templates()[1]])


def _place_mask(mask: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """float32[1024]: a sprite's mask moved inside its cell, what leaves the cell cut off."""
    margin = 8
    canvas = np.zeros((32 + 2 * margin, 32 + 2 * margin), np.float32)
    left, top = 16 + margin + shift[0] - SPRITE_SIZE // 2, 16 + margin + shift[1] - SPRITE_SIZE // 2
    canvas[top : top + SPRITE_SIZE, left : left + SPRITE_SIZE] = mask
    return canvas[margin:-margin, margin:-margin].reshape(-1)


def compare(seen: Scene, true: Scene) -> Marks:
    """Marks of what the judge saw against what should be there."""
    pairs = [(thing, seen.thing_at(thing.cell)) for thing in true.things]

    def share(*names: str) -> float:
        right = [
            other is not None and all(getattr(thing, name) == getattr(other, name) for name in names)
            for thing, other in pairs
        ]
        return sum(right) / len(right)

    same_cells = {thing.cell for thing in seen.things} == {thing.cell for thing in true.things}
    return Marks(
        place=float(seen.place == true.place),
        cells=float(same_cells),
        shape=share("shape"),
        colour=share("colour"),
        size=share("size"),
        shape_colour_cell=share("shape", "colour"),
        whole=float(seen.content() == true.content()),
    )
