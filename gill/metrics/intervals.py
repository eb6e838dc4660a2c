"""How sure a score is: percentile bootstrap over items, for one system and for the difference of two.

Shape legend: S = training seeds, N = items, C = clusters of items.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gill.errors import DataError, ShapeError

_NORMAL_QUANTILE = 1.96  # 97.5 % of a standard normal distribution lie below
_RANGE = (0.0, 1.0)  # of shares


@dataclass(frozen=True)
class Estimate:
    """A mean over items and seeds.

    Attributes:
        mean: of everything. low, high: its bootstrap interval over items, or over clusters of them.
        seed_deviation: standard deviation of the seeds' own means; nan for one seed.
    """

    mean: float
    low: float
    high: float
    seed_deviation: float
    num_items: int
    num_seeds: int


def estimate_mean(
    value_SN: Tensor,
    num_resamples: int = 1000,
    resampling_seed: int = 0,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    is_share: bool = True,
) -> Estimate:
    """Mean of what the same items score under several seeds.

    Items are drawn anew within the seeds, the same ones in each: a hard story is hard for every seed, and to draw for
    each seed apart would take three seeds for three times the stories. Where every share is 0, or every one 1, no
    resample differs: then the interval is Wilson's, from 0 to 1.96^2 / (n + 1.96^2) or mirrored. One cluster alone
    tells nothing of others: its interval is all that can be.

    Args:
        value_SN: float[S, N], or float[N] of one seed. `num_resamples` and the rest as in `bootstrap_interval`.
        clusters: what each item is about, such as the picture of a question: items about one thing are not independent
            and are drawn together. By default each stands alone.
        is_share: values are right or wrong, or shares of what is right; False for a cosine or a distance.

    Raises:
        ShapeError: no items, or not a cluster for each. DataError: a value that is not finite.
    """
    found = _estimate(value_SN, num_resamples, resampling_seed, level, clusters)
    return _widened(found, _RANGE, level, clusters) if is_share else found


def _estimate(
    value_SN: Tensor, num_resamples: int, resampling_seed: int, level: float, clusters: Sequence[Hashable] | None
) -> Estimate:
    value_SN = value_SN.double().reshape(1, -1) if value_SN.dim() == 1 else value_SN.double()
    if value_SN.dim() != 2 or not value_SN.numel():
        raise ShapeError(f"wanted one value an item, a row a seed; got {tuple(value_SN.shape)}")
    if not value_SN.isfinite().all():
        raise DataError("a value is not finite; leave the item out of all seeds, and count it")
    num_seeds, num_items = value_SN.shape
    mean_N, mean_S = value_SN.mean(0).cpu(), value_SN.mean(1)
    sum_C, count_C = _by_cluster(mean_N, clusters)
    low, high = bootstrap_interval(
        lambda places: float(sum_C[places].sum() / count_C[places].sum()),
        len(sum_C),
        num_resamples,
        resampling_seed,
        level,
    )
    if len(sum_C) == 1:
        low, high = -math.inf, math.inf
    deviation = float(mean_S.std()) if num_seeds > 1 else float("nan")
    return Estimate(float(mean_N.mean()), low, high, deviation, num_items, num_seeds)


def _widened(found: Estimate, extremes: Sequence[float], level: float, clusters: Sequence[Hashable] | None) -> Estimate:
    """With Wilson's bound around the mean of items that all have the same extreme value: no resample differs there."""
    if math.isinf(found.low):
        return replace(found, low=extremes[0], high=extremes[-1])
    if not found.low == found.high == found.mean or found.mean not in extremes:
        return found
    bound = _one_sided_bound(found.num_items if clusters is None else len(set(clusters)), level)
    return replace(found, low=max(found.mean - bound, extremes[0]), high=min(found.mean + bound, extremes[-1]))


def _by_cluster(value_N: Tensor, clusters: Sequence[Hashable] | None) -> tuple[Tensor, Tensor]:
    """float64[C], float64[C]: sum and number of the values of each cluster, in the order of their first items."""
    if clusters is None:
        return value_N, torch.ones_like(value_N)
    members = _members(len(value_N), clusters)
    sums = torch.stack([value_N[places].sum() for places in members])
    return sums, torch.tensor([len(places) for places in members], dtype=value_N.dtype)


def paired_difference(
    ours_SN: Tensor,
    theirs_SN: Tensor,
    num_resamples: int = 1000,
    resampling_seed: int = 0,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    is_share: bool = True,
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
    found = _estimate(ours_SN.double() - theirs_SN.double(), num_resamples, resampling_seed, level, clusters)
    return _widened(found, (-1.0, *_RANGE), level, clusters) if is_share else found


def bootstrap_interval(
    score: Callable[[Tensor], float], num_items: int, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a score over resampled items.

    Args:
        score: of the items at int64[num_items] places, of which some occur several times.
        level: share of the resamples inside.
    """
    return _inside(_resample(score, num_items, num_resamples, seed), level)


def _one_sided_bound(num_items: int, level: float = 0.95) -> float:
    """How large a share may be of which none of the items is; 1 minus it is how small, where all are.

    Wilson's interval (1927): z^2 / (n + z^2), for 0 of 256 at 95 % .0148.
    """
    squared = statistics.NormalDist().inv_cdf((1 + level) / 2) ** 2
    return squared / (num_items + squared)


def share_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of values in 0..1 by the normal distribution; of equal extremes as `estimate_mean`.

    Raises:
        ShapeError: fewer than two values.
    """
    mean, half = statistics.fmean(values), share_half_width(values)
    return max(mean - half, 0.0), min(mean + half, 1.0)


def share_half_width(values: Sequence[float]) -> float:
    """Half of the interval of `share_interval` before it is cut to 0..1: 1.96 standard errors, or Wilson's bound.

    Raises:
        ShapeError: fewer than two values.
    """
    if len(values) < 2:
        raise ShapeError(f"an interval of a mean needs two values or more, got {len(values)}")
    half = _NORMAL_QUANTILE * statistics.stdev(values) / math.sqrt(len(values))
    return _one_sided_bound(len(values)) if half == 0 and statistics.fmean(values) in _RANGE else half


def estimate_score(
    scores: Sequence[Callable[[Tensor], float]],
    num_items: int,
    num_resamples: int = 1000,
    resampling_seed: int = 0,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """Mean over seeds of what a set of items scores as a whole, such as BLEU or FID; items are drawn anew as above.

    A resample holds some items twice, which alone changes what a set scores: FID grows. So the interval is that of the
    resamples about their own mean, around the score of the set.

    Args:
        scores: of each seed, the score of the items at int64[N] places.
        clusters: as in `estimate_mean`.

    Raises:
        ShapeError: no items, no seed, or not a cluster for each item.
    """
    if not num_items or not scores:
        raise ShapeError(f"wanted a set of items under one seed or more; got {num_items} items, {len(scores)} seeds")
    mean_S = torch.tensor([score(torch.arange(num_items)) for score in scores], dtype=torch.float64)
    members = _members(num_items, clusters)

    def of_clusters(drawn: Tensor) -> float:
        places = torch.cat([members[cluster] for cluster in drawn.tolist()])
        return sum(score(places) for score in scores) / len(scores)

    found = _resample(of_clusters, len(members), num_resamples, resampling_seed)
    low, high = _inside(found - found.mean() + mean_S.mean(), level)
    deviation = float(mean_S.std()) if len(scores) > 1 else float("nan")
    return Estimate(float(mean_S.mean()), low, high, deviation, num_items, len(scores))


def _members(num_items: int, clusters: Sequence[Hashable] | None) -> list[Tensor]:
    """int64[size]: the places of each cluster's items."""
    if clusters is None:
        return list(torch.arange(num_items).unsqueeze(1))
    if len(clusters) != num_items:
        raise ShapeError(f"wanted a cluster for each of {num_items} items; got {len(clusters)}")
    places: dict[Hashable, list[int]] = {}
    for place, each in enumerate(clusters):
        places.setdefault(each, []).append(place)
    return [torch.tensor(each) for each in places.values()]


def _resample(score: Callable[[Tensor], float], num_items: int, num_resamples: int, seed: int) -> Tensor:
    """float64[num_resamples]"""
    generator = torch.Generator().manual_seed(seed)
    found = [score(torch.randint(num_items, (num_items,), generator=generator)) for _ in range(num_resamples)]
    return torch.tensor(found, dtype=torch.float64)


def _inside(found: Tensor, level: float) -> tuple[float, float]:
    outside = (1 - level) / 2
    low, high = found.quantile(torch.tensor([outside, 1 - outside]).double()).tolist()
    return low, high
