"""How many people would have answered a question as a system does: VQA's accuracy (Antol et al., arXiv:1505.00468).

Answers are compared after what visualqa.org/evaluation describes; released scripts differ in which side they do it to,
and this does it to both, as the page says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gill.errors import ShapeError

_ARTICLES = frozenset(("a", "an", "the"))
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD, _COMMA_IN_NUMBER = re.compile(r"\.(?!\d)"), re.compile(r"\d,\d")
# The words that the evaluation knows without (one of) their apostrophes.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's i'd've isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one(word: str) -> Iterator[str]:
    return (word[: found.start()] + word[found.end() :] for found in re.finditer("'", word))


_RESTORED = {short: word for word in _CONTRACTIONS.split() for short in _without_one(word)} | {
    "somebody'd": "somebodyd"
}


def normalise_answer(text: str) -> str:
    """Lower case, numbers up to ten as digits, apostrophes restored, without articles, periods and punctuation.

    A mark that borders a space, or any mark where a comma stands in a number, goes; others become a space.
    """
    said = " ".join(text.split())
    has_number = _COMMA_IN_NUMBER.search(said) is not None
    cleaned = said
    for mark in _PUNCTUATION:
        borders_space = f"{mark} " in said or f" {mark}" in said
        cleaned = cleaned.replace(mark, "" if borders_space or has_number else " ")
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", cleaned).lower().split()]
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(said: str, answers: Sequence[str]) -> float:
    """In 0..1: of each choice of all people but one, a third for each who answers so, at most 1; the mean of them.

    Args:
        answers: of the people who were asked, ten in VQA.

    Raises:
        ShapeError: fewer than two.
    """
    if len(answers) < 2:
        raise ShapeError(f"VQA's accuracy compares with all people but one; got {len(answers)} answers")
    mine = normalise_answer(said)
    agrees = [normalise_answer(answer) == mine for answer in answers]
    return sum(min((sum(agrees) - agree) / 3, 1) for agree in agrees) / len(agrees)
