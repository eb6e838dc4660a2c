"""Draw a scene as a 64x64 RGB picture, with numpy alone.

Backgrounds run from a light left side to a dark right side, so that left and right look as different as sky and
ground do. A thing is a flat colour with a dark outline. Shapes are tests on a fine grid of points, averaged down,
so the pixels do not depend on the version of a drawing library.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from gill.flatland.world import CELLS, COLOURS, Scene, Thing

PICTURE_SIZE = 64
HORIZON = 32
SPRITE_SIZE = 24
RADIUS = {"small": 8.0, "big": 11.5}
OUTLINE_PIXELS = 1.25
OUTLINE_SHADE = 0.2  # how much of the colour is left in the outline
SUBPIXELS = 8
RGB = {
    "red": (216, 38, 44),
    "orange": (245, 132, 20),
    "yellow": (252, 222, 30),
    "green": (36, 150, 56),
    "blue": (38, 78, 214),
    "purple": (142, 46, 172),
    "white": (250, 250, 250),
    "black": (34, 34, 38),
}
# place: sky left, sky right, ground left, ground right
BANDS = {
    "beach": ((168, 214, 232), (112, 160, 190), (226, 204, 160), (168, 140, 102)),
    "field": ((176, 206, 226), (118, 150, 178), (158, 196, 128), (98, 138, 88)),
    "sea": ((188, 204, 216), (132, 146, 166), (112, 184, 192), (62, 124, 142)),
    "snow": ((176, 178, 206), (122, 124, 154), (190, 200, 218), (136, 148, 174)),
    "desert": ((222, 182, 166), (162, 124, 122), (214, 170, 124), (150, 112, 84)),
    "room": ((204, 190, 160), (146, 132, 112), (172, 146, 130), (120, 98, 88)),
}
TEXTURE_STRENGTH = 14


def cell_centre(cell: str) -> tuple[int, int]:
    """Pixel (x, y) of the middle of a cell."""
    index = CELLS.index(cell)
    return 16 + 32 * (index % 2), 16 + 32 * (index // 2)


def draw(scene: Scene) -> Image.Image:
    """The scene's picture, RGB, 64x64."""
    return Image.fromarray(draw_array(scene))


def draw_batch(scenes: Sequence[Scene]) -> np.ndarray:
    """uint8[N, 64, 64, 3]: one picture for each scene."""
    return np.stack([draw_array(scene) for scene in scenes])


def draw_array(scene: Scene) -> np.ndarray:
    """uint8[64, 64, 3]: the background with each thing pasted over it."""
    canvas = background(scene.place).copy()
    for thing in scene.things:
        _paste(canvas, thing)
    return np.rint(canvas).astype(np.uint8)


def contact_sheet(pictures: np.ndarray, columns: int = 8, zoom: int = 2, gap: int = 2) -> Image.Image:
    """A grid of pictures on white.

    Args:
        pictures: uint8[N, H, W, 3]; N need not fill the last row.
        columns: pictures in a row.
        zoom: whole factor of enlargement.
        gap: pixels between pictures, before enlargement.
    """
    rows = -(-len(pictures) // columns)
    height, width = pictures.shape[1] + gap, pictures.shape[2] + gap
    sheet = np.full((rows * height + gap, columns * width + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = index // columns * height + gap, index % columns * width + gap
        sheet[y : y + height - gap, x : x + width - gap] = picture
    image = Image.fromarray(sheet)
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def _paste(canvas: np.ndarray, thing: Thing) -> None:
    x, y = cell_centre(thing.cell)
    left, top = x + thing.offset[0] - SPRITE_SIZE // 2, y + thing.offset[1] - SPRITE_SIZE // 2
    window = canvas[top : top + SPRITE_SIZE, left : left + SPRITE_SIZE]
    colour, alpha = sprite(thing.shape, thing.colour, thing.size)
    window += alpha * (colour - window)


@cache
def background(place: str) -> np.ndarray:
    """float32[64, 64, 3] in 0..255: the empty place."""
    sky_left, sky_right, ground_left, ground_right = (np.array(rgb, np.float32) for rgb in BANDS[place])
    ramp = (np.arange(PICTURE_SIZE, dtype=np.float32) / (PICTURE_SIZE - 1))[None, :, None]
    canvas = np.empty((PICTURE_SIZE, PICTURE_SIZE, 3), np.float32)
    canvas[:HORIZON] = sky_left + ramp * (sky_right - sky_left)
    canvas[HORIZON:] = ground_left + ramp * (ground_right - ground_left)
    return canvas + TEXTURE_STRENGTH * _texture(place)[:, :, None]


def _texture(place: str) -> np.ndarray:
    """float32[64, 64] in -1..1: marks that make each place recognisable, periodic in 8 pixels."""
    y, x = np.mgrid[:PICTURE_SIZE, :PICTURE_SIZE]
    ground = y >= HORIZON
    marks = {
        "beach": ground * ((x + 3 * (y // 8)) % 8 < 2) * (y % 8 < 2) * -1.0,
        "field": ground * (x % 4 == 1) * (y % 8 < 3) * -1.0,
        "sea": ground * ((y + abs(x % 8 - 4) // 2) % 8 < 2) * 1.0,
        "snow": ((x + 4 * (y // 8)) % 8 < 2) * (y % 8 < 2) * 1.0,
        "desert": ground * ((y + abs(x % 32 - 16) // 4) % 8 < 2) * -1.0,
        "room": np.where(ground, (y % 8 == 0) * -1.0, (x % 8 < 2) * -0.7),
    }
    return marks[place].astype(np.float32)


@cache
def sprite(shape: str, colour: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    """(float32[24, 24, 3] colour in 0..255, float32[24, 24, 1] opacity in 0..1) of a thing."""
    alpha, inner = shape_masks(shape, size)
    fill = np.array(RGB[colour], np.float32)
    share = np.divide(inner, alpha, out=np.zeros_like(inner), where=alpha > 0)[:, :, None]
    return fill * (OUTLINE_SHADE + (1 - OUTLINE_SHADE) * share), alpha[:, :, None]


@cache
def shape_masks(shape: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    """Two float32[24, 24] coverages in 0..1: the whole shape, and the shape inside its outline."""
    steps = (np.arange(SPRITE_SIZE * SUBPIXELS, dtype=np.float64) + 0.5) / SUBPIXELS - SPRITE_SIZE / 2
    x, y = np.meshgrid(steps / RADIUS[size], steps / RADIUS[size])
    inside = _INSIDE[shape](x, y)
    inner = _erode(inside, round(OUTLINE_PIXELS * SUBPIXELS))
    return _average_down(inside), _average_down(inner)


def _average_down(mask: np.ndarray) -> np.ndarray:
    tiles = mask.reshape(SPRITE_SIZE, SUBPIXELS, SPRITE_SIZE, SUBPIXELS)
    return tiles.mean(axis=(1, 3)).astype(np.float32)


def _erode(mask: np.ndarray, radius: int) -> np.ndarray:
    """Points whose whole disc of `radius` grid steps lies in the mask."""
    result = mask.copy()
    padded = np.pad(mask, radius)
    height, width = mask.shape
    for dy in range(-radius, radius + 1):
        reach = int((radius * radius - dy * dy) ** 0.5)
        for dx in range(-reach, reach + 1):
            result &= padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width]
    return result


# Corners of a five-pointed star, clockwise from the top, outer radius 1.04 and inner 0.46.
_STAR = (
    (0.0, -1.0), (0.27, -0.33), (0.99, -0.28), (0.44, 0.18), (0.61, 0.88),
    (0.0, 0.5), (-0.61, 0.88), (-0.44, 0.18), (-0.99, -0.28), (-0.27, -0.33),
)  # fmt: skip


def _in_polygon(x: np.ndarray, y: np.ndarray, corners: Sequence[tuple[float, float]]) -> np.ndarray:
    """Even-odd rule: a point is inside when a ray to its right crosses the border an odd number of times."""
    inside = np.zeros(x.shape, bool)
    for (x1, y1), (x2, y2) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside


def _in_heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    lobes = (abs(x) - 0.47) ** 2 + (y + 0.42) ** 2 <= 0.52**2
    point = (abs(x) * 0.94 + (y + 0.05) <= 0.97) & (y >= -0.42) & (abs(x) <= 0.99)
    return lobes | point


_INSIDE = {
    "ball": lambda x, y: x * x + y * y <= 1,
    "box": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.86,
    "cone": lambda x, y: (y <= 0.86) & (abs(x) * 1.86 <= y + 1),
    "star": lambda x, y: _in_polygon(x, y, _STAR),
    "heart": _in_heart,
    "ring": lambda x, y: (x * x + y * y <= 1) & (x * x + y * y >= 0.48**2),
    "moon": lambda x, y: (x * x + y * y <= 1) & ((x - 0.55) ** 2 + y * y >= 0.7**2),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) <= 0.33) & (np.maximum(abs(x), abs(y)) <= 0.97),
}


def min_contrast() -> float:
    """Smallest RGB distance between a thing's colour and any background pixel; how well things stand off."""
    pixels = np.concatenate([background(place).reshape(-1, 3) for place in BANDS])
    return min(float(np.linalg.norm(pixels - np.array(RGB[colour], np.float32), axis=1).min()) for colour in COLOURS)
