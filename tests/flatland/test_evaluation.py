"""The measures of drawn pictures that do not come from the judge."""

from dataclasses import replace

import numpy as np

from gill.flatland.pictures import draw_array, draw_batch
from gill.flatland.world import Thing, make_scene, scenes
from scripts.flatland.evaluation import CLEAN_LEVELS, NOISE_SIGMA, smudge

BALL = Thing("ball", "yellow", "big", "top left", (0, 0))


def test_a_true_picture_has_no_bad_patch_and_noise_makes_none():
    pictures = draw_batch(list(scenes("val", 40)))
    noise = np.random.default_rng(0).normal(0, NOISE_SIGMA, pictures.shape)
    assert [smudge(picture) for picture in pictures] == [0.0] * 40
    noisy = np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8)
    assert max(map(smudge, noisy)) < CLEAN_LEVELS / 2


def test_a_thing_drawn_twice_at_two_offsets_is_a_bad_patch():
    once, moved = (draw_array(make_scene("sea", [replace(BALL, offset=(x, 0))])) for x in (0, 4))
    assert smudge(np.minimum(once, moved)) > CLEAN_LEVELS


def test_a_smear_over_an_edge_is_a_bad_patch():
    picture = draw_array(make_scene("sea", [BALL])).copy()
    picture[2:9, 12:20] = (245, 132, 20)
    assert smudge(picture) > CLEAN_LEVELS
