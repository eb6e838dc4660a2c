"""What a set of answers scores as a whole: no mean of what each scores alone, so what each brings to it is kept.

Shape legend: N = answers, K = what an answer brings.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gill.errors import DataError
from gill.metrics import (
    Estimate,
    bleu_of_counts,
    estimate_score,
    frechet_inception_distance,
    kernel_inception_distance,
)

_KID_SIZE, _KID_SUBSETS = 1000, 20  # pictures of a subset, of which a smaller set has one


@dataclass(frozen=True)
class SetMeasure:
    """A score of a set.

    Attributes:
        rows: name of what each answer brings, float[N, K] of a run's `Scores.rows`.
        score: of those rows.
        num_resamples: of its interval; fewer where a score takes long.
    """

    rows: str
    score: Callable[[Tensor], float]
    num_resamples: int = 1000


def _bleu(order: int) -> SetMeasure:
    return SetMeasure("bleu", lambda counts_NK: bleu_of_counts(counts_NK)[f"bleu{order}"])


def _fid(rows_NK: Tensor) -> float:
    drawn, true = rows_NK.chunk(2, dim=1)
    return frechet_inception_distance(drawn, true)


def _kid(rows_NK: Tensor) -> float:
    drawn, true = rows_NK.chunk(2, dim=1)
    num_subsets = _KID_SUBSETS if len(rows_NK) > _KID_SIZE else 1
    return kernel_inception_distance(drawn, true, num_subsets, _KID_SIZE).mean


# Rows of features are those of the drawn picture and, behind them, those of the true one.
_PICTURE_MEASURES = {"fid": SetMeasure("features", _fid, 100), "kid": SetMeasure("features", _kid, 100)}
SET_MEASURES = {f"bleu{order}": _bleu(order) for order in (1, 2, 3, 4)} | _PICTURE_MEASURES


def estimate_set(
    measure: str,
    ours: Sequence[Tensor],
    theirs: Sequence[Tensor] = (),
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """Mean over seeds of a set's score, or by how much it exceeds another system's on the same items.

    Args:
        ours, theirs: rows [N, K] of each seed, of the same items in the same order; of theirs the mean counts, unless
            there are as many seeds of both.
        clusters: of each item, what it shares with those that are drawn together with it.

    Raises:
        DataError: no items.
    """
    if not ours or not len(ours[0]):
        raise DataError(f"no item has {measure} under every seed")
    score = SET_MEASURES[measure].score

    def of_seed(seed: int) -> Callable[[Tensor], float]:
        others = theirs[seed : seed + 1] if len(theirs) == len(ours) else theirs

        def difference(places: Tensor) -> float:
            beaten = statistics.fmean(score(rows[places]) for rows in others) if others else 0.0
            return score(ours[seed][places]) - beaten

        return difference

    scores = [of_seed(seed) for seed in range(len(ours))]
    return estimate_score(scores, len(ours[0]), SET_MEASURES[measure].num_resamples, clusters=clusters)
