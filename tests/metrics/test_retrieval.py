"""Ranks, recall, reciprocal ranks and gains of matrices small enough to check by eye."""

import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from gill.errors import DataError, ShapeError
from gill.metrics import (
    mean_reciprocal_rank,
    ndcg,
    ranks_of_hits,
    ranks_of_owners,
    ranks_of_partners,
    recall_at,
    retrieval_recalls,
)

SCORES = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.2, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]])


def hits(*columns: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(columns), 4).bool()


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
    monkeypatch.setattr("gill.metrics.retrieval._ROWS_AT_ONCE", 7)
    assert torch.equal(ranks_of_partners(text, image), whole)


def test_the_rank_is_that_of_the_right_candidate() -> None:
    ranks = ranks_of_hits(SCORES, hits(2, 0, 3))
    assert ranks.tolist() == [1, 1, 3]  # behind .9; two ties, of which one counts; last of four
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)
    assert [recall_at(ranks, k) for k in (1, 2, 3, 4)] == pytest.approx([0, 2 / 3, 2 / 3, 1])


def test_the_best_of_several_right_candidates_counts() -> None:
    ranks = ranks_of_hits(SCORES, hits(2, 0, 3) | hits(1, 1, 1))
    assert ranks.tolist() == [1, 1, 1]  # right ones are not in each other's way


def test_candidates_out_of_the_gallery_beat_nobody() -> None:
    scores = SCORES.clone()
    scores[0, 0] = scores[1, 1] = -torch.inf
    assert ranks_of_hits(scores, hits(2, 0, 3)).tolist() == [0, 1, 3]


def test_captions_share_a_picture() -> None:
    picture = torch.eye(2)
    text = torch.tensor([[1.0, 0.0], [0.4, 0.6], [0.0, 1.0], [0.7, 0.3]])
    owner = torch.tensor([0, 0, 1, 1])
    assert ranks_of_owners(text, picture, owner, torch.arange(2)).tolist() == [0, 1, 0, 1]
    scores = retrieval_recalls(text, picture, (1, 2), owner)
    assert scores == pytest.approx({"t2i_r@1": 0.5, "t2i_r@2": 1, "i2t_r@1": 1, "i2t_r@2": 1})


def test_the_gain_of_dense_annotations_worked_by_hand() -> None:
    relevance = torch.tensor([[0.0, 1.0, 0.5, 0.0]])
    # Two relevant candidates, so the two best count: order 0, 2, 3, 1 finds 0 / log2(2) + .5 / log2(3).
    best = 1 + 0.5 / 1.5849625
    assert ndcg(SCORES[:1], relevance).tolist() == pytest.approx([0.5 / 1.5849625 / best])
    # The order 0, 1, 2 and the last of three equal candidates is not known: each place gets (0 + 1 + .5) / 3.
    assert ndcg(SCORES[1:2], relevance).tolist() == pytest.approx([(0.5 + 0.5 / 1.5849625) / best])
    assert ndcg(relevance, relevance).tolist() == [1]


def test_the_gain_is_that_of_an_independent_implementation() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(8, 100, generator=generator)
    relevance = (torch.rand(8, 100, generator=generator) * 5).round() / 5
    relevance[relevance < 0.7] = 0
    for row, found in enumerate(ndcg(scores, relevance)):
        depth = int((relevance[row] > 0).sum())
        wanted = retrieval_normalized_dcg(scores[row], relevance[row], top_k=depth)
        assert float(found) == pytest.approx(float(wanted), abs=1e-6)


def test_sides_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ShapeError, match="pair up"):
        ranks_of_partners(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(ShapeError, match="one flag a score"):
        ranks_of_hits(SCORES, hits(1, 2))
    with pytest.raises(DataError, match="query 1 has no right candidate"):
        ranks_of_hits(SCORES[:2], torch.tensor([[True] * 4, [False] * 4]))
    with pytest.raises(DataError, match="query 0 has a score that is not a number"):
        ranks_of_hits(SCORES[:1] * torch.nan, hits(1))
    with pytest.raises(DataError, match="query 0 has no relevant candidate"):
        ndcg(SCORES[:1], torch.zeros(1, 4))
