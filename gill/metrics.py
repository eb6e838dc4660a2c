"""Pure scores: numbers from numbers, every result in 0..1.

Shape legend: N = pairs, E = retrieval width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gill.errors import ShapeError

RECALL_AT = (1, 5, 10)
_ROWS_AT_ONCE = 1024  # of the score matrix


def retrieval_recalls(text_NE: Tensor, image_NE: Tensor, ks: Sequence[int] = RECALL_AT) -> dict[str, float]:
    """Recall both ways: `t2i_r@k` finds a text's picture among all, `i2t_r@k` a picture's text.

    Args:
        text_NE, image_NE: float[N, E]; row i of both is pair i. Scores are their dot products.
    """
    text_to_image, image_to_text = ranks_of_partners(text_NE, image_NE), ranks_of_partners(image_NE, text_NE)
    return {
        **{f"t2i_r@{k}": recall_at(text_to_image, k) for k in ks},
        **{f"i2t_r@{k}": recall_at(image_to_text, k) for k in ks},
    }


def ranks_of_partners(query_NE: Tensor, gallery_NE: Tensor) -> Tensor:
    """int64[N]: how many gallery rows beat row i for query i, a tie counting as beaten by half of the tied rows.

    Without the ties a collapsed model, which says the same of everything, would score 1.

    Raises:
        ShapeError: the two sides do not pair up.
    """
    if query_NE.shape != gallery_NE.shape or not len(query_NE):
        raise ShapeError(f"queries and gallery must pair up: got {tuple(query_NE.shape)}, {tuple(gallery_NE.shape)}")
    ranks = []
    for start in range(0, len(query_NE), _ROWS_AT_ONCE):
        scores = query_NE[start : start + _ROWS_AT_ONCE] @ gallery_NE.T
        own = torch.arange(start, start + len(scores), device=scores.device)
        own_score = scores.gather(1, own[:, None])
        ties = (scores == own_score).sum(1) - 1
        ranks.append((scores > own_score).sum(1) + (ties + 1) // 2)
    return torch.cat(ranks)


def recall_at(ranks: Tensor, k: int) -> float:
    """Share of ranks (0 = first) below `k`."""
    return float((ranks < k).double().mean())


def bleu_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU-1 to BLEU-4 (sacrebleu, lower case), one reference a hypothesis.

    Raises:
        ShapeError: not as many hypotheses as references, or none.
    """
    from sacrebleu.metrics import BLEU  # slow to import, needed in validation only

    if len(hypotheses) != len(references) or not hypotheses:
        raise ShapeError(f"one reference a hypothesis: got {len(hypotheses)} and {len(references)}")
    return {
        f"bleu{order}": BLEU(max_ngram_order=order, lowercase=True)
        .corpus_score(list(hypotheses), [list(references)])
        .score
        / 100
        for order in (1, 2, 3, 4)
    }
