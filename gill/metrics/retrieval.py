"""How far up a ranking the right answers stand.

Ranks count from 0. Who ties with the right answer counts half, and one alone as a whole: a collapsed model, which says
the same of everything, must not score 1, and a stable sort must not score for its order.

Shape legend: B = queries, N = candidates of a query, Q and G = rows of a query and of a gallery side, E = width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gill.errors import DataError, ShapeError

RECALL_AT = (1, 5, 10)
_ROWS_AT_ONCE = 1024  # of the score matrix


def ranks_of_hits(scores_BN: Tensor, is_hit_BN: Tensor) -> Tensor:
    """int64[B]: how many wrong candidates beat the best right one of each query.

    Args:
        scores_BN: float[B, N]; -inf takes a candidate out of a query's gallery.
        is_hit_BN: bool[B, N], one or more right candidates a query.

    Raises:
        ShapeError: the two do not pair up. DataError: a query with nothing right, or a score that is no number.
    """
    if scores_BN.shape != is_hit_BN.shape or scores_BN.dim() != 2 or not scores_BN.numel():
        raise ShapeError(
            f"wanted one flag a score, a row a query: got {tuple(is_hit_BN.shape)} and {tuple(scores_BN.shape)}"
        )
    if not is_hit_BN.any(1).all():
        raise DataError(f"query {int(is_hit_BN.any(1).long().argmin())} has no right candidate")
    if scores_BN.isnan().any():
        raise DataError(f"query {int(scores_BN.isnan().any(1).long().argmax())} has a score that is not a number")
    best_B1 = scores_BN.masked_fill(~is_hit_BN, -torch.inf).amax(1, keepdim=True)
    wrong_BN = ~is_hit_BN & (scores_BN != -torch.inf)
    ties_B = (wrong_BN & (scores_BN == best_B1)).sum(1)
    return (wrong_BN & (scores_BN > best_B1)).sum(1) + (ties_B + 1) // 2


def ranks_of_owners(query_QE: Tensor, gallery_GE: Tensor, owner_Q: Tensor, owner_G: Tensor) -> Tensor:
    """int64[Q]: rank of the first gallery row of each query's own owner, such as the picture that captions share.

    Args:
        query_QE, gallery_GE: scores are their dot products. owner_Q, owner_G: int64, whose each row is.

    Raises:
        ShapeError: owners or widths that do not fit. DataError: a query whose owner has no row in the gallery.
    """
    fits = len(query_QE) == len(owner_Q) and len(gallery_GE) == len(owner_G) and len(query_QE) and len(gallery_GE)
    if not fits or query_QE.shape[1] != gallery_GE.shape[1]:
        raise ShapeError(
            f"queries {tuple(query_QE.shape)} of {len(owner_Q)} owners and a gallery {tuple(gallery_GE.shape)} of "
            f"{len(owner_G)} owners do not pair up"
        )
    parts = zip(query_QE.split(_ROWS_AT_ONCE), owner_Q.split(_ROWS_AT_ONCE), strict=True)
    return torch.cat([ranks_of_hits(query @ gallery_GE.T, owner[:, None] == owner_G) for query, owner in parts])


def ranks_of_partners(query_NE: Tensor, gallery_NE: Tensor) -> Tensor:
    """int64[N]: as `ranks_of_owners`, row i of the gallery being the right one for query i.

    Raises:
        ShapeError: the two sides do not pair up.
    """
    if query_NE.shape != gallery_NE.shape:
        raise ShapeError(f"queries and gallery must pair up: got {tuple(query_NE.shape)}, {tuple(gallery_NE.shape)}")
    owner_N = torch.arange(len(query_NE), device=query_NE.device)
    return ranks_of_owners(query_NE, gallery_NE, owner_N, owner_N)


def retrieval_recalls(
    text_QE: Tensor, image_GE: Tensor, ks: Sequence[int] = RECALL_AT, image_of_text_Q: Tensor | None = None
) -> dict[str, float]:
    """Recall both ways: `t2i_r@k` finds a text's picture among all, `i2t_r@k` any of a picture's texts.

    Args:
        text_QE: float[Q, E]. image_GE: float[G, E]. Scores are their dot products.
        image_of_text_Q: int64[Q], row of each text's picture: COCO has five texts a picture. None pairs row i with
            row i.

    Raises:
        ShapeError: the sides do not pair up. DataError: a picture without a text, or the reverse.
    """
    if image_of_text_Q is None:
        text_to_image, image_to_text = ranks_of_partners(text_QE, image_GE), ranks_of_partners(image_GE, text_QE)
    else:
        image_G = torch.arange(len(image_GE), device=image_GE.device)
        text_to_image = ranks_of_owners(text_QE, image_GE, image_of_text_Q, image_G)
        image_to_text = ranks_of_owners(image_GE, text_QE, image_G, image_of_text_Q)
    return {
        **{f"t2i_r@{k}": recall_at(text_to_image, k) for k in ks},
        **{f"i2t_r@{k}": recall_at(image_to_text, k) for k in ks},
    }


def recall_at(ranks: Tensor, k: int) -> float:
    """Share of int64[Q] ranks (0 = first) below `k`."""
    return float((ranks < k).double().mean())


def mean_reciprocal_rank(ranks: Tensor) -> float:
    """Mean of 1 / (rank + 1) of int64[Q] ranks, in (0, 1]."""
    return float((1 / (ranks.double() + 1)).mean())


def ndcg(scores_BN: Tensor, relevance_BN: Tensor) -> Tensor:
    """float64[B]: normalised discounted cumulative gain as VisDial defines it, in 0..1.

    A query with K candidates of non-zero relevance is scored on its K best: the sum of relevance / log2(place + 2) over
    them, by that of the best order (arXiv:1902.00579; visualdialog.org, challenge 2018). Candidates that tie share
    their mean relevance.

    Args:
        relevance_BN: float[B, N], in 0..1, the share of annotators who found a candidate right.

    Raises:
        ShapeError: the two do not pair up. DataError: a query with nothing relevant.
    """
    if scores_BN.shape != relevance_BN.shape or scores_BN.dim() != 2 or not len(scores_BN):
        raise ShapeError(f"wanted one relevance a score: got {tuple(relevance_BN.shape)} and {tuple(scores_BN.shape)}")
    if not (relevance_BN != 0).any(1).all():
        raise DataError(f"query {int((relevance_BN != 0).any(1).long().argmin())} has no relevant candidate")
    return torch.stack([_ndcg(*row) for row in zip(scores_BN, relevance_BN.double(), strict=True)])


def _ndcg(scores_N: Tensor, relevance_N: Tensor) -> Tensor:
    depth = int((relevance_N != 0).sum())
    _, group_N, sizes = scores_N.neg().unique(return_inverse=True, return_counts=True)  # group 0 scores best
    mean_relevance = torch.zeros(len(sizes), dtype=torch.float64, device=scores_N.device)
    mean_relevance = mean_relevance.index_add(0, group_N, relevance_N) / sizes
    discount = torch.arange(2, depth + 2, dtype=torch.float64, device=scores_N.device).log2()
    found = mean_relevance.repeat_interleave(sizes)[:depth]
    best = relevance_N.sort(descending=True).values[:depth]
    return (found / discount).sum() / (best / discount).sum()
