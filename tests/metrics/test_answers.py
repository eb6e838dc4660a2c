"""VQA's accuracy and its rules of comparison, by hand."""

import pytest

from gill.errors import ShapeError
from gill.metrics import normalise_answer, vqa_accuracy


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ("The Dog.", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("a cat, and an owl!", "cat and owl"),
        ("black-and-white", "black and white"),  # between words a mark becomes a space
        ("1,000", "1000"),  # and none between digits
        ("1,000 red/blue", "1000 redblue"),  # nor anywhere else in such an answer
        ("3.5", "3.5"),  # a decimal keeps its point
        ("6:30 p.m.", "6:30 pm"),  # a time its colon
        ("dont know", "don't know"),
        ("couldntve", "couldntve"),  # two apostrophes short is no known word
        ("couldnt've", "couldn't've"),
        ("man's", "man's"),
        (" on\tthe\n table ", "on table"),
        ("?", ""),
    ],
)
def test_answers_are_compared_without_what_does_not_matter(said: str, compared: str) -> None:
    assert normalise_answer(said) == compared


@pytest.mark.parametrize(("num_agreeing", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_is_the_mean_over_all_people_but_one(num_agreeing: int, accuracy: float) -> None:
    # Three of ten agree: without one of them 2 / 3, without one of the seven others 1: (3 x 2 / 3 + 7) / 10.
    answers = ["yes"] * num_agreeing + [f"no {number}" for number in range(10 - num_agreeing)]
    assert vqa_accuracy("Yes.", answers) == pytest.approx(accuracy)


def test_an_answer_without_others_is_refused() -> None:
    with pytest.raises(ShapeError, match="all people but one"):
        vqa_accuracy("yes", ["yes"])
