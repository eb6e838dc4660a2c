"""How sure a score is: percentile bootstrap over items, for one system and for the difference of two.

Shape legend: S = training seeds, N = items.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gill.errors import DataError, ShapeError

_NORMAL_QUANTILE = 1.96  # 97.5 % of a standard normal distribution lie below


@dataclass(frozen=True)
class Estimate:
    """A mean over items and seeds.

    Attributes:
        mean: of everything. low, high: its bootstrap interval over items.
        seed_deviation: standard deviation of the seeds' own means; nan for one seed.
    """

    mean: float
    low: float
    high: float
    seed_deviation: float
    num_items: int
    num_seeds: int


def estimate_mean(
    value_SN: Tensor, num_resamples: int = 1000, resampling_seed: int = 0, level: float = 0.95
) -> Estimate:
    """Mean of what the same items score under several seeds.

    Items are drawn anew within the seeds, the same ones in each: a hard story is hard for every seed, and to draw for
    each seed apart would take three seeds for three times the stories.

    Args:
        value_SN: float[S, N], or float[N] of one seed. `num_resamples` and the rest as in `bootstrap_interval`.

    Raises:
        ShapeError: no items. DataError: a value that is not finite.
    """
    value_SN = value_SN.double().reshape(1, -1) if value_SN.dim() == 1 else value_SN.double()
    if value_SN.dim() != 2 or not value_SN.numel():
        raise ShapeError(f"wanted one value an item, a row a seed; got {tuple(value_SN.shape)}")
    if not value_SN.isfinite().all():
        raise DataError("a value is not finite; leave the item out of all seeds, and count it")
    num_seeds, num_items = value_SN.shape
    mean_N, mean_S = value_SN.mean(0).cpu(), value_SN.mean(1)
    low, high = bootstrap_interval(
        lambda places: float(mean_N[places].mean()), num_items, num_resamples, resampling_seed, level
    )
    deviation = float(mean_S.std()) if num_seeds > 1 else float("nan")
    return Estimate(float(mean_N.mean()), low, high, deviation, num_items, num_seeds)


def paired_difference(
    ours_SN: Tensor, theirs_SN: Tensor, num_resamples: int = 1000, resampling_seed: int = 0, level: float = 0.95
) -> Estimate:
    """By how much one system scores higher than another on the same items; as `estimate_mean` of the differences.

    The interval is narrower than those of the two systems suggest, as what makes an item hard falls out.

    Args:
        theirs_SN: of as many seeds, or float[N] or float[1, N] of a system that was not trained.

    Raises:
        ShapeError: other items or seeds on the two sides. DataError: a value that is not finite.
    """
    ours_SN, theirs_SN = (each.reshape(1, -1) if each.dim() == 1 else each for each in (ours_SN, theirs_SN))
    if ours_SN.shape[1:] != theirs_SN.shape[1:] or len(theirs_SN) not in (1, len(ours_SN)):
        raise ShapeError(f"systems must share items and seeds: {tuple(ours_SN.shape)} and {tuple(theirs_SN.shape)}")
    return estimate_mean(ours_SN.double() - theirs_SN.double(), num_resamples, resampling_seed, level)


def bootstrap_interval(
    score: Callable[[Tensor], float], num_items: int, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a score over resampled items.

    Args:
        score: of the items at int64[num_items] places, of which some occur several times.
        level: share of the resamples inside.
    """
    return _inside(_resample(score, num_items, num_resamples, seed), level)


def normal_half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean by the normal distribution: 1.96 standard errors.

    Raises:
        ShapeError: fewer than two values.
    """
    if len(values) < 2:
        raise ShapeError(f"an interval of a mean needs two values or more, got {len(values)}")
    return _NORMAL_QUANTILE * statistics.stdev(values) / math.sqrt(len(values))


def estimate_score(
    scores: Sequence[Callable[[Tensor], float]],
    num_items: int,
    num_resamples: int = 1000,
    resampling_seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Mean over seeds of what a set of items scores as a whole, such as BLEU or FID; items are drawn anew as above.

    A resample holds some items twice, which alone changes what a set scores: FID grows. So the interval is that of the
    resamples about their own mean, around the score of the set.

    Args:
        scores: of each seed, the score of the items at int64[N] places.

    Raises:
        ShapeError: no items, or no seed.
    """
    if not num_items or not scores:
        raise ShapeError(f"wanted a set of items under one seed or more; got {num_items} items, {len(scores)} seeds")
    mean_S = torch.tensor([score(torch.arange(num_items)) for score in scores], dtype=torch.float64)
    found = _resample(
        lambda places: sum(score(places) for score in scores) / len(scores), num_items, num_resamples, resampling_seed
    )
    low, high = _inside(found - found.mean() + mean_S.mean(), level)
    deviation = float(mean_S.std()) if len(scores) > 1 else float("nan")
    return Estimate(float(mean_S.mean()), low, high, deviation, num_items, len(scores))


def _resample(score: Callable[[Tensor], float], num_items: int, num_resamples: int, seed: int) -> Tensor:
    """float64[num_resamples]"""
    generator = torch.Generator().manual_seed(seed)
    found = [score(torch.randint(num_items, (num_items,), generator=generator)) for _ in range(num_resamples)]
    return torch.tensor(found, dtype=torch.float64)


def _inside(found: Tensor, level: float) -> tuple[float, float]:
    outside = (1 - level) / 2
    low, high = found.quantile(torch.tensor([outside, 1 - outside]).double()).tolist()
    return low, high
