"""Pure scores: numbers from numbers, every result in 0..1.

Shape legend: N = pairs or answers, E = retrieval width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


def macro_scores(predicted_N: Tensor, true_N: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over the classes, each class counting the same.

    What has no denominator is 0: the precision of a class that is never predicted, the recall of one that never occurs.

    Args:
        predicted_N, true_N: int64[N], classes from 0.

    Raises:
        ShapeError: not as many predictions as classes, or none.
    """
    if predicted_N.shape != true_N.shape or not len(true_N):
        raise ShapeError(f"one prediction an answer: got {tuple(predicted_N.shape)} and {tuple(true_N.shape)}")
    counts = torch.bincount(true_N * num_classes + predicted_N, minlength=num_classes**2).view(num_classes, -1).double()
    right, said, real = counts.diagonal(), counts.sum(0), counts.sum(1)
    return {
        "accuracy": float(right.sum() / counts.sum()),
        "precision": float((right / said.clamp(min=1)).mean()),
        "recall": float((right / real.clamp(min=1)).mean()),
        "f1": float((2 * right / (said + real).clamp(min=1)).mean()),
    }


@dataclass(frozen=True)
class CalibrationBin:
    """Answers given with a like confidence: its mean, how many of them were right, and their share of all answers."""

    confidence: float
    accuracy: float
    share: float


def calibration_bins(confidence_N: Tensor, is_right_N: Tensor, num_bins: int = 10) -> list[CalibrationBin]:
    """Answers in `num_bins` equal bins of confidence over [0, 1], a border belonging to the bin below; none is empty.

    Args:
        confidence_N: float[N], probability of the answer that was given. is_right_N: bool[N].

    Raises:
        ShapeError: not as many confidences as answers, or none.
    """
    if confidence_N.shape != is_right_N.shape or not len(is_right_N):
        raise ShapeError(f"one confidence an answer: got {tuple(confidence_N.shape)} and {tuple(is_right_N.shape)}")
    confidence, is_right = confidence_N.double(), is_right_N.double()
    number = ((confidence * num_bins).ceil().long() - 1).clamp(min=0)
    inside = [number == bin_number for bin_number in range(num_bins)]
    return [
        CalibrationBin(float(confidence[each].mean()), float(is_right[each].mean()), float(each.double().mean()))
        for each in inside
        if each.any()
    ]


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Mean gap between confidence and accuracy, bins weighted by their share (Guo et al., arXiv:1706.04599)."""
    return sum(each.share * abs(each.confidence - each.accuracy) for each in bins)


def bootstrap_interval(
    score: Callable[[Tensor], float], num_items: int, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a score over resampled items.

    Args:
        score: of the items at int64[num_items] places, of which some occur several times.
        level: share of the resamples inside.
    """
    generator = torch.Generator().manual_seed(seed)
    found = [score(torch.randint(num_items, (num_items,), generator=generator)) for _ in range(num_resamples)]
    outside = (1 - level) / 2
    low, high = (
        torch.tensor(found, dtype=torch.float64).quantile(torch.tensor([outside, 1 - outside]).double()).tolist()
    )
    return low, high
