"""Scores on cases worked out by hand."""

import pytest
import torch

from gill.errors import ShapeError
from gill.metrics import bleu_scores, ranks_of_partners, retrieval_recalls


def test_ranks_count_who_is_nearer() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    # Text 0 finds its picture first; text 1 ties with picture 2; so does text 2, and picture 0 is farther.
    assert ranks_of_partners(text, image).tolist() == [0, 1, 1]
    scores = retrieval_recalls(text, image, ks=(1, 2))
    assert scores["t2i_r@1"] == pytest.approx(1 / 3) and scores["t2i_r@2"] == 1


def test_saying_the_same_of_everything_is_no_recall() -> None:
    same = torch.ones(100, 4)
    assert retrieval_recalls(same, same, ks=(1, 10)) == {f"{way}_r@{k}": 0.0 for k in (1, 10) for way in ("t2i", "i2t")}


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    text, image = torch.randn(50, 8, generator=generator), torch.randn(50, 8, generator=generator)
    whole = ranks_of_partners(text, image)
    monkeypatch.setattr("gill.metrics._ROWS_AT_ONCE", 7)
    assert torch.equal(ranks_of_partners(text, image), whole)


def test_bleu_of_known_sentences() -> None:
    assert bleu_scores(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(
        {f"bleu{order}": 1.0 for order in (1, 2, 3, 4)}
    )
    # 5 of 6 words, 3 of 5 pairs; no brevity penalty.
    scores = bleu_scores(["the cat sat on a mat"], ["the cat sat on the mat"])
    assert scores["bleu1"] == pytest.approx(5 / 6)
    assert scores["bleu2"] == pytest.approx((5 / 6 * 3 / 5) ** 0.5)


def test_sides_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ShapeError, match="pair up"):
        ranks_of_partners(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(ShapeError, match="one reference"):
        bleu_scores([], [])
