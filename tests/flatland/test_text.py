"""Captions, stories and dialogues: what they say is true of the scene, and no more than they should say."""

import math

import pytest

from gill.errors import DataError
from gill.flatland.captions import all_captions, caption, caption_entropy, cell_from, read_caption, relation, retold
from gill.flatland.dialogues import all_answers, dialogue, dialogue_text
from gill.flatland.documents import document, listing, story_caption, story_text
from gill.flatland.stories import story
from gill.flatland.world import CELLS, COLOURS, PLACES, SHAPES, SIZES, Thing, make_scene, num_contents, scenes, split_of

BALL = Thing("ball", "red", "big", "top left")
STAR = Thing("star", "white", "small", "bottom left")
TWO = make_scene("beach", [STAR, BALL])


def test_the_canonical_caption_reads_as_written_here():
    assert caption(TWO) == "a big red ball at the top left and a small white star at the bottom left of the beach."


def test_a_caption_is_retold_in_the_order_of_other_words():
    star_first = "a small white star at the bottom left and a big red ball at the top left of the beach."
    assert retold(TWO, "first a ball, then a star") == retold(TWO, "only a ball") == caption(TWO)
    assert retold(TWO, "first a star, then a ball") == retold(TWO, "only a star") == star_first
    assert retold(TWO, "nothing of it") == caption(TWO)
    for words in all_captions(TWO):
        assert (words.index("star") < words.index("ball")) == retold(TWO, words).startswith("a small white star")


def test_a_relation_template_says_where_the_second_thing_is():
    assert (
        caption(TWO, 2) == "a picture of the beach with a big red ball at the top left. below it is a small white star."
    )
    assert "above it is a big red ball" in caption(TWO, 2, swap=True)


def test_reading_takes_every_caption_back():
    for scene in scenes("val", 200):
        texts = all_captions(scene)
        assert len(set(texts)) == 4 * len(scene.things)
        assert {read_caption(text) for text in texts} == {scene.content()}


def test_reading_forgives_capitals_and_spaces():
    assert read_caption("  A big red ball at the  top left of the beach . ") == make_scene("beach", [BALL])


@pytest.mark.parametrize("text", ["", "a dog", "a big red ball at the top left of the moon.", "a big red ball"])
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(DataError, match=r"not a caption of Flatland.*should look like"):
        read_caption(text)


@pytest.mark.parametrize(
    "text",
    [
        "a big red ball at the top left and a small blue ring at the top left of the sea.",
        "a picture of the sea with a big red ball at the top left. above it is a small blue ring.",
        "a big red ball at the top left and a small blue ball at the top right of the sea.",
    ],
)
def test_captions_that_contradict_themselves_are_refused(text):
    with pytest.raises(DataError, match="contradicts itself"):
        read_caption(text)


def test_relations_point_from_one_cell_to_the_other():
    for one in CELLS:
        for two in CELLS:
            if one != two:
                assert cell_from(one, relation(one, two)) == two
    assert cell_from("top left", "above it") is None


def test_entropy_is_that_of_a_uniform_choice():
    assert caption_entropy(1) == pytest.approx(math.log(4 * num_contents(1)))
    assert caption_entropy(2) == pytest.approx(math.log(8 * num_contents(2)))
    mixed = -math.log(1 / 3) / 3 - math.log(2 / 3) * 2 / 3 + caption_entropy(1) / 3 + caption_entropy(2) * 2 / 3
    assert caption_entropy() == pytest.approx(mixed)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_story_never_tells_a_colour_and_its_end_tells_cells_only(split):
    for index in range(40):
        told = story(split, index)
        assert not set(" ".join(told.texts).replace(".", "").split()) & set(COLOURS)
        assert not set(told.texts[-1].replace(".", "").split()) & {*SHAPES, *PLACES, *SIZES}


def test_a_story_holds_together():
    for index in range(40):
        told = story("val", index)
        assert len(told.texts) == len(told.scenes) == 5
        assert {split_of(scene) for scene in told.scenes} == {"val"}
        first, second, third, fourth, fifth = told.scenes
        assert (first.things[0].shape, first.things[0].colour) == (second.things[0].shape, second.things[0].colour)
        assert first.place != second.place == third.place
        assert fourth.place == fifth.place
        assert f"the {second.place}" in told.texts[1]
        looks = [{(thing.shape, thing.colour, thing.size) for thing in scene.things} for scene in told.scenes[2:]]
        assert looks[0] == looks[1] == looks[2]
        assert len({scene.content() for scene in told.scenes}) == 5


def test_ten_rounds_tell_everything_about_the_picture():
    for index in range(40):
        held = dialogue("val", index)
        said = {(each.question, each.answer) for each in held.rounds}
        assert len(held.rounds) == 10
        assert ("where is it", f"it is the {held.scene.place}") in said
        for thing in held.scene.things:
            assert (f"what is at the {thing.cell}", f"a {thing.shape}") in said
            assert (f"what colour is the {thing.shape}", f"the {thing.shape} is {thing.colour}") in said
            assert any(answer.endswith(f"the {thing.shape} is {thing.size}") for _, answer in said)


def test_two_rounds_tell_only_the_shapes():
    for index in range(20):
        start = dialogue_text(dialogue("val", index).rounds[:2])
        assert not any(word in start for word in (*COLOURS, *PLACES, *SIZES))


def test_there_are_at_least_a_hundred_answers_and_every_answer_is_one_of_them():
    answers = all_answers()
    assert len(set(answers)) == len(answers) >= 100
    assert {each.answer for index in range(100) for each in dialogue("test", index).rounds} <= set(answers)


def test_a_dialogue_is_fed_as_question_and_answer_lines():
    rounds = dialogue("val", 0).rounds[:2]
    lines = dialogue_text(rounds).split("\n")
    assert lines[0] == f"Q: {rounds[0].question}?"
    assert lines[3] == f"A: {rounds[1].answer}"


def test_documents_are_reproducible_and_training_ones_name_no_novel_pair():
    assert document("train", 5) == document("train", 5)
    for index in range(300):
        text = document("train", index, repeats=0.2)
        assert "purple ball" not in text
        assert "the ball is purple" not in text


def test_a_story_text_shows_pictures_where_asked():
    told = story("val", 0)
    assert story_text(told, [False] * 5) == " ".join(told.texts)
    end = story_text(told, [False] * 4 + [True]).removeprefix(" ".join(told.texts)).strip("() ")
    assert read_caption(end) == told.scenes[-1].content()


def test_the_pictures_of_a_story_name_the_hero_first():
    for index in range(20):
        told = story("val", index)
        hero = told.scenes[0].things[0]
        for scene in told.scenes:
            assert story_caption(told, scene).startswith(f"a {hero.size} {hero.colour} {hero.shape} at the")


def test_a_listing_tells_every_cell_in_equally_many_words():
    assert listing(TWO) == (
        "[ beach big red ball top left beach beach beach top right "
        "small white star bottom left beach beach beach bottom right ]"
    )
    assert {len(listing(scene).split()) for scene in scenes("val", 50)} == {3 + 4 * 5}


def test_retellings_keep_the_order_of_the_brackets():
    """Half captions, half listings between the brackets; what follows tells the same scene."""
    only_retellings = (0.0, 0.0, 0.0, 1.0)
    for index in range(200):
        listed = index % 2
        text = document("val", index, 0, 0.0, only_retellings, float(listed))
        shown, told = text.split(" ] " if listed else " ) ", 1)
        first = told_apart(told)[0]
        scene = read_caption(first)
        assert f"{shown} ]" == listing(scene) if listed else read_caption(shown[2:]) == scene
        order = [shown.index(thing.shape) < shown.index(scene.things[-1].shape) for thing in scene.things[:-1]]
        assert order == [first.index(thing.shape) < first.index(scene.things[-1].shape) for thing in scene.things[:-1]]


def test_pictures_of_a_story_are_listed_but_the_last():
    told = story("val", 0)
    text = story_text(told, [True] * 5, shows=listing)
    assert [bracket in text for bracket in map(listing, told.scenes)] == [True] * 4 + [False]
    assert text.endswith(f"( {story_caption(told, told.scenes[-1])} )")


def told_apart(text: str) -> list[str]:
    """The captions that follow one another in a text: each the longest beginning that reads as a caption."""
    ends = [at + 1 for at, letter in enumerate(text) if letter == "."]
    for end in reversed(ends):
        try:
            read_caption(text[:end])
        except DataError:
            continue
        rest = text[end:].strip()
        return [text[:end], *(told_apart(rest) if rest else [])]
    raise AssertionError(f"no caption at the beginning of {text!r}")
