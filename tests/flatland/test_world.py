"""Scenes: drawn from seeds, owned by one split each, counted right."""

import itertools
from dataclasses import replace
from random import Random

import pytest

from gill.errors import ConfigError
from gill.flatland.neighbours import neighbour, recoloured
from gill.flatland.stories import story
from gill.flatland.world import (
    CELLS,
    COLOURS,
    NOVEL_PAIRS,
    PLACES,
    SHAPES,
    SIZES,
    SPLITS,
    Thing,
    distinct_scenes,
    item_rng,
    make_scene,
    num_contents,
    sample_scene,
    scenes,
    split_of,
)


def test_the_same_seed_gives_the_same_scenes_and_another_seed_others():
    assert list(scenes("val", 20, seed=3)) == list(scenes("val", 20, seed=3))
    assert list(scenes("val", 20, seed=3)) != list(scenes("val", 20, seed=4))


def test_a_longer_stream_starts_with_the_shorter_one():
    assert list(scenes("test", 30))[:10] == list(scenes("test", 10))


@pytest.mark.parametrize("split", SPLITS)
def test_every_scene_of_a_split_belongs_to_it(split):
    assert {split_of(scene) for scene in scenes(split, 100)} == {split}


def test_offsets_do_not_change_the_split():
    rng = Random(0)
    scene = sample_scene(rng, "test")
    assert split_of(scene.content()) == "test"


def test_novel_pairs_are_a_tenth_of_all_and_only_in_the_novel_split():
    assert len(NOVEL_PAIRS) == round(len(SHAPES) * len(COLOURS) / 10)
    for split in ("train", "val", "test"):
        assert not any(thing.is_novel for scene in scenes(split, 200) for thing in scene.things)
    assert all(any(thing.is_novel for thing in scene.things) for scene in scenes("novel", 50))


def test_eight_tenths_of_the_scenes_are_for_training():
    things = [Thing(*look, cell) for look in itertools.product(SHAPES, COLOURS, SIZES) for cell in CELLS]
    owners = [split_of(make_scene(place, [thing])) for place in PLACES for thing in things if not thing.is_novel]
    assert owners.count("train") / len(owners) == pytest.approx(0.8, abs=0.03)


def test_the_number_of_contents_is_what_counting_them_gives():
    looks = [(s, c, z) for s, c, z in itertools.product(SHAPES, COLOURS, SIZES) if (s, c) not in NOVEL_PAIRS]
    pairs = sum(1 for one, two in itertools.combinations(looks, 2) if one[0] != two[0])
    assert num_contents(1) == len(PLACES) * 4 * len(looks)
    assert num_contents(2) == len(PLACES) * 4 * 3 * pairs


def test_a_gallery_holds_no_content_twice():
    gallery = distinct_scenes("test", 200, num_things=1)
    assert len({scene.content() for scene in gallery}) == 200


def test_a_gallery_larger_than_its_split_is_an_error():
    with pytest.raises(ConfigError, match="too few distinct scenes"):
        distinct_scenes("val", 400, num_things=1)


@pytest.mark.parametrize(("split", "size", "message"), [("dev", 3, "known splits: train"), ("val", 0, "at least 1")])
def test_bad_requests_say_what_is_wanted(split, size, message):
    with pytest.raises(ConfigError, match=message):
        scenes(split, size)


def test_items_do_not_depend_on_each_other():
    assert item_rng(0, "train", "scene", 7).random() == item_rng(0, "train", "scene", 7).random()
    assert item_rng(0, "train", "scene", 7).random() != item_rng(0, "train", "scene", 8).random()


def test_neighbours_differ_in_one_kind_of_fact():
    def without(scene, kind):
        things = sorted(
            tuple("" if name == kind else getattr(thing, name) for name in ("cell", "shape", "colour", "size"))
            for thing in scene.things
        )
        return "" if kind == "place" else scene.place, things

    rng, found = Random(3), set()
    for scene in scenes("train", 200, seed=5):
        other = neighbour(rng, scene, "train")
        assert split_of(other) == "train"
        kinds = [
            kind
            for kind in ("place", "cell", "shape", "colour", "size")
            if without(scene, kind) == without(other, kind)
        ]
        assert kinds
        found |= set(kinds) if len(kinds) == 1 else set()
    assert found == {"place", "cell", "shape", "colour", "size"}


def test_a_recoloured_story_has_the_same_texts_and_other_colours():
    rng = Random(3)
    pairs = [(told, recoloured(rng, told, "train")) for told in (story("train", index) for index in range(30))]
    changed = [(told, other) for told, other in pairs if other is not None]
    assert len(changed) > 15
    for told, other in changed:
        assert told.texts == other.texts
        assert all(split_of(scene) == "train" for scene in other.scenes)
        for one, two in zip(told.scenes, other.scenes, strict=True):
            assert [replace(t, colour="") for t in one.things] == [replace(t, colour="") for t in two.things]
        assert (
            sum(a.colour != b.colour for a, b in zip(told.scenes[-1].things, other.scenes[-1].things, strict=True)) == 1
        )
