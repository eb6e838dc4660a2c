"""Captions whose scores are worked out by hand, or by the COCO caption evaluation itself."""

import pytest

from gill.errors import ShapeError
from gill.metrics import (
    bleu_counts,
    bleu_of_counts,
    bleu_scores,
    caption_words,
    cider,
    longest_common_subsequence,
    rouge_l,
)

HYPOTHESES = ("a red ball in the park", "a small blue box on the beach at night", "two green stars in the sky")
REFERENCES = (
    ("a red ball lies in the park", "the park with a ball"),
    ("a blue box on the beach", "a small box at the beach at night", "a box"),
    ("three green stars",),
)


def test_bleu_of_known_sentences() -> None:
    assert bleu_scores(["the cat sat on the mat"], [["the cat sat on the mat"]]) == pytest.approx(
        {f"bleu{order}": 1.0 for order in (1, 2, 3, 4)}
    )
    # 5 of 6 words, 3 of 5 pairs; no brevity penalty.
    scores = bleu_scores(["the cat sat on a mat"], [["the cat sat on the mat"]])
    assert scores["bleu1"] == pytest.approx(5 / 6)
    assert scores["bleu2"] == pytest.approx((5 / 6 * 3 / 5) ** 0.5)


def test_bleu_of_a_set_is_made_of_what_each_caption_brings() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 fours; the nearer reference has 6 words.
    counts = bleu_counts(["the cat sat on a mat", "dog"], [["the cat sat on the mat", "cat"], ["a dog"]])
    assert counts.tolist() == [[5, 3, 2, 1, 6, 5, 4, 3, 6, 6], [1, 0, 0, 0, 1, 0, 0, 0, 1, 2]]
    # Together 6 of 7 words, 7 said where 8 are wanted.
    assert bleu_of_counts(counts)["bleu1"] == pytest.approx(6 / 7 * 2.718281828 ** (1 - 8 / 7))
    assert bleu_of_counts(counts.float()[:1]) == bleu_scores(["the cat sat on a mat"], [["the cat sat on the mat"]])


def test_captions_score_as_in_the_coco_evaluation() -> None:
    # Printed by pycocoevalcap 1.2 for these captions.
    assert cider(HYPOTHESES, REFERENCES).tolist() == pytest.approx(
        [3.5861477255226126, 3.466764643403279, 1.8217649980348676]
    )
    assert rouge_l(HYPOTHESES, REFERENCES).tolist() == pytest.approx(
        [0.9104477611940297, 0.8951781970649895, 0.4728682170542636]
    )
    assert list(bleu_scores(HYPOTHESES, REFERENCES).values()) == pytest.approx(
        [0.8095238094852608, 0.7346308866545553, 0.6315121580881875, 0.5009233649351265]
    )


def test_words_are_those_of_the_coco_tokenizer() -> None:
    # Printed by pycocoevalcap's PTBTokenizer (Java) for the same captions.
    for text, wanted in {
        "two dogs don't play in the grass": "two dogs do n't play in the grass",
        "the cat's on a red, well-lit mat!": "the cat 's on a red well-lit mat",
        'he said "hello" to 2 people': "he said hello to 2 people",
        "I'm sure they've 1,000 things": "i 'm sure they 've 1,000 things",
        "eggs & bacon; the kids' toys...": "eggs & bacon the kids toys",
    }.items():
        assert caption_words(text) == wanted.split()


def test_rouge_l_of_a_sentence_worked_by_hand() -> None:
    # "police the gunman" is common to both ways round, in order: 2 of 4 words, both sides (Lin 2004, section 2).
    assert longest_common_subsequence("abcbdab", "bdcaba") == 4  # "bcba", the textbook's example
    assert rouge_l(["police kill the gunman"], [["the gunman police killed"]]).tolist() == pytest.approx([0.5])
    # 3 of 3 words said, 3 of 6 wanted: (1 + 1.44) x 1 x .5 / (.5 + 1.44 x 1).
    assert rouge_l(["the cat sat"], [["the cat sat on the mat"]]).tolist() == pytest.approx([2.44 * 0.5 / 1.94])
    assert rouge_l(["", "dog"], [["cat"], ["cat"]]).tolist() == [0, 0]


def test_cider_of_captions_worked_by_hand() -> None:
    # The same words exactly: each order that has n-grams scores 1, and two words have orders 1 and 2 of 4.
    assert cider(["red ball", "blue box"], [["red ball"], ["blue box"]]).tolist() == pytest.approx([5, 5])
    # "a" is in both captions' references: log(2 / 2) = 0, so it weighs nothing, and is missed by nobody.
    assert cider(["ball", "box"], [["a ball"], ["a box"]])[0] == pytest.approx(10 / 4 * 2.718281828 ** (-1 / 72))


def test_captions_without_references_are_refused() -> None:
    for score in (bleu_scores, rouge_l, cider):
        for said, references in (([], []), (["a"], []), (["a"], [[]])):
            with pytest.raises(ShapeError, match="one reference"):
                score(said, references)
