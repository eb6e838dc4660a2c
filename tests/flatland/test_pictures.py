"""Pictures and the judge that reads them back."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from gill.errors import DataError
from gill.flatland.judge import compare, read_picture
from gill.flatland.pictures import background, contact_sheet, draw, draw_array, draw_batch, min_contrast, sprite
from gill.flatland.world import CELLS, COLOURS, OFFSETS, PLACES, SHAPES, SIZES, Scene, Thing, make_scene, scenes

BALL = Thing("ball", "red", "big", "top left")
STAR = Thing("star", "white", "small", "bottom right", (4, -4))
TWO = make_scene("beach", [BALL, STAR])
PIXEL_HASH = "6fb484005f15252fc164cabe17e749e4cb33be3be3a4fb5ac9184f6116700184"


def test_pixels_are_the_same_everywhere():
    pictures = draw_batch(list(scenes("train", 64)) + list(scenes("novel", 64)))
    assert hashlib.sha256(pictures.tobytes()).hexdigest() == PIXEL_HASH


def test_every_colour_stands_off_from_every_background():
    assert min_contrast() > 50


def test_left_is_lighter_than_right_and_the_sky_differs_from_the_ground():
    for place in PLACES:
        canvas = background(place)
        assert canvas[:, :16].mean() > canvas[:, -16:].mean() + 30
        assert np.linalg.norm(canvas[:32].mean((0, 1)) - canvas[32:].mean((0, 1))) > 20


def test_a_thing_stays_inside_its_cell():
    for cell in CELLS:
        for offset in ((dx, dy) for dx in OFFSETS for dy in OFFSETS):
            scene = Scene("sea", (Thing("box", "red", "big", cell, offset),))
            changed = np.any(draw_array(scene) != draw_array(Scene("sea", ())), axis=2)
            rows, columns = np.nonzero(changed)
            index = CELLS.index(cell)
            assert {*rows // 32} == {index // 2}
            assert {*columns // 32} == {index % 2}


def test_a_sprite_is_flat_inside_and_dark_at_its_border():
    colour, alpha = sprite("ball", "red", "big")
    assert np.allclose(colour[12, 12], (216, 38, 44))
    border = colour[12][(alpha[12, :, 0] > 0.99)][0]
    assert border.sum() < colour[12, 12].sum() / 2


def test_the_judge_reads_true_pictures():
    true = list(scenes("test", 300))
    right = sum(
        read_picture(picture).content() == scene.content()
        for picture, scene in zip(draw_batch(true), true, strict=True)
    )
    assert right / 300 >= 0.99


def test_the_judge_reads_offsets_too():
    assert read_picture(draw(TWO)) == TWO


def test_noise_does_not_disturb_the_judge():
    true = list(scenes("test", 200))
    noise = np.random.default_rng(0).normal(0, 8, (200, 64, 64, 3))
    noisy = np.clip(draw_batch(true) + noise, 0, 255).astype(np.uint8)
    right = sum(read_picture(picture).content() == scene.content() for picture, scene in zip(noisy, true, strict=True))
    assert right / 200 >= 0.98


def test_every_shape_colour_and_size_is_told_apart():
    for shape in SHAPES:
        for colour in COLOURS:
            for size in SIZES:
                scene = Scene("field", (Thing(shape, colour, size, "bottom left"),))
                assert read_picture(draw(scene)) == scene


def test_the_judge_sees_an_empty_place_and_more_than_two_things():
    assert read_picture(draw(Scene("snow", ()))) == Scene("snow", ())
    crowd = Scene("room", tuple(Thing("cross", "blue", "big", cell) for cell in CELLS))
    assert read_picture(draw(crowd)) == crowd


def test_a_picture_of_another_size_is_read_too():
    assert read_picture(draw(TWO).resize((256, 256), Image.Resampling.NEAREST)).content() == TWO.content()


def test_what_is_no_picture_is_refused():
    with pytest.raises(DataError, match=r"uint8\[height, width, 3\], got float64\[64, 64\]"):
        read_picture(np.zeros((64, 64)))


def test_marks_of_a_swapped_pair_of_colours():
    swapped = make_scene(
        "beach", [Thing("ball", "white", "big", "top left"), Thing("star", "red", "small", "bottom right")]
    )
    marks = compare(swapped, TWO)
    assert (marks.place, marks.cells, marks.shape, marks.size) == (1, 1, 1, 1)
    assert (marks.colour, marks.shape_colour_cell, marks.whole) == (0, 0, 0)


def test_a_missing_thing_counts_half_and_a_thing_too_many_spoils_the_cells():
    missing = compare(Scene("beach", (BALL,)), TWO)
    assert (missing.cells, missing.shape, missing.whole) == (0, 0.5, 0)
    extra = compare(make_scene("beach", [BALL, STAR, Thing("box", "blue", "big", "top right")]), TWO)
    assert (extra.cells, extra.shape, extra.whole) == (0, 1, 0)


def test_a_contact_sheet_has_room_for_all():
    sheet = contact_sheet(draw_batch(list(scenes("val", 5))), columns=3, zoom=2, gap=2)
    assert sheet.size == (2 * (3 * 66 + 2), 2 * (2 * 66 + 2))
