"""Bootstrap intervals against the normal distribution's, on values worked out by hand."""

import math

import pytest
import torch

from gill.errors import DataError, ShapeError
from gill.metrics import (
    bootstrap_interval,
    estimate_mean,
    estimate_score,
    paired_difference,
    share_half_width,
    share_interval,
)


def test_a_bootstrap_interval_is_that_of_the_mean() -> None:
    values = torch.tensor([0.0] * 60 + [1.0] * 40)
    low, high = bootstrap_interval(lambda places: float(values[places].mean()), 100, num_resamples=2000)
    # The mean is .4 and its standard error sqrt(.4 x .6 / 100) = .049, so 95 % lie within .304 and .496.
    assert low == pytest.approx(0.304, abs=0.015) and high == pytest.approx(0.496, abs=0.015)
    assert bootstrap_interval(lambda places: 0.7, 5, num_resamples=10) == pytest.approx((0.7, 0.7))


def test_seeds_share_their_items() -> None:
    items = torch.tensor([0.0] * 60 + [1.0] * 40)
    alone, thrice = estimate_mean(items, 2000), estimate_mean(items.repeat(3, 1), 2000)
    # The same items under three seeds tell no more about items than under one: the interval is that of 100, not of 300.
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high))
    assert alone.low == pytest.approx(0.304, abs=0.015) and alone.high == pytest.approx(0.496, abs=0.015)
    assert (thrice.mean, thrice.seed_deviation) == pytest.approx((0.4, 0))
    assert (thrice.num_items, thrice.num_seeds) == (100, 3)
    assert math.isnan(alone.seed_deviation)


def test_the_spread_of_seeds_is_that_of_their_means() -> None:
    found = estimate_mean(torch.tensor([[0.0, 0.2], [0.2, 0.4], [0.4, 0.6]]), 50)
    assert found.mean == pytest.approx(0.3) and found.seed_deviation == pytest.approx(0.2)  # of .1, .3, .5


def test_a_paired_difference_forgets_what_makes_items_hard() -> None:
    hardness = torch.linspace(0, 1, 200).repeat(3, 1)
    found = paired_difference(hardness + 0.1, hardness)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert paired_difference(hardness + 0.1, hardness[0]).mean == pytest.approx(0.1)  # against an untrained system
    assert estimate_mean(hardness).high - estimate_mean(hardness).low > 0.07  # sd .29 of 200: 2 x 1.96 x .0205 = .08


def test_none_of_few_is_not_surely_none() -> None:
    """Where all items score 0, or 1, no resample differs: Wilson's interval ends at 3.8415 / (n + 3.8415)."""
    none, all_of_three = estimate_mean(torch.zeros(256)), estimate_mean(torch.ones(3, 500))
    assert (none.mean, none.low, none.high) == pytest.approx((0, 0, 0.01478), abs=1e-5)
    assert (all_of_three.mean, all_of_three.low, all_of_three.high) == pytest.approx((1, 0.99238, 1), abs=1e-5)
    assert share_interval([1.0] * 256) == pytest.approx((0.98522, 1), abs=1e-5)
    assert share_interval([0, 0, 1, 1]) == pytest.approx((0, 1))  # .5 and 1.96 x .289 to both sides
    cosines = estimate_mean(torch.ones(500), is_share=False)
    assert (cosines.mean, cosines.low, cosines.high) == (1, 1, 1)
    equal = paired_difference(torch.ones(3, 500), torch.ones(500))
    assert (equal.mean, equal.low, equal.high) == pytest.approx((0, -0.00762, 0.00762), abs=1e-5)
    better = paired_difference(torch.ones(500), torch.zeros(500))
    assert (better.mean, better.low, better.high) == pytest.approx((1, 0.99238, 1), abs=1e-5)
    same = paired_difference(torch.ones(500), torch.ones(500), is_share=False)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_items_about_one_thing_are_drawn_together() -> None:
    """Five answers about a picture that are alike tell no more than one."""
    items = torch.tensor([0.0] * 60 + [1.0] * 40)
    fivefold, about = items.repeat_interleave(5), [f"picture {number // 5}" for number in range(500)]
    alone, together = estimate_mean(items, 2000), estimate_mean(fivefold, 2000, clusters=about)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    assert (together.mean, together.num_items) == (pytest.approx(0.4), 500)
    apart = estimate_mean(fivefold, 2000)
    assert apart.high - apart.low < 0.6 * (alone.high - alone.low)  # about 1 / sqrt(5)
    assert estimate_mean(torch.zeros(500), clusters=about).high == pytest.approx(0.03699, abs=1e-5)  # of 100
    one_thing = (
        estimate_mean(items, clusters=["picture"] * 100),
        estimate_mean(items, clusters="p" * 100, is_share=False),
    )
    assert [(each.low, each.high) for each in one_thing] == [(0, 1), (-math.inf, math.inf)], (
        "one tells nothing of others"
    )
    uneven = estimate_mean(torch.tensor([1.0, 1.0, 1.0, 0.0]), 2000, clusters="aaab")
    assert (uneven.mean, uneven.low, uneven.high) == (0.75, 0, 1)  # a resample is aa, ab or bb
    less = paired_difference(fivefold, torch.zeros(500), 2000, clusters=about)
    assert (less.low, less.high) == pytest.approx((alone.low, alone.high))
    as_set = estimate_score([lambda places: float(fivefold[places].mean())], 500, 2000, clusters=about)
    assert (as_set.mean, as_set.num_items) == (pytest.approx(0.4), 500)
    assert (as_set.low, as_set.high) == pytest.approx((alone.low, alone.high), abs=0.01)
    with pytest.raises(ShapeError, match="a cluster for each of 100 items"):
        estimate_mean(items, clusters=about)
    with pytest.raises(ShapeError, match="a cluster for each of 100 items"):
        estimate_score([lambda places: 0.0], 100, clusters=about)


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        estimate_mean(torch.tensor([0.0, math.nan]))
    with pytest.raises(ShapeError, match="share items"):
        paired_difference(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ShapeError, match="one value an item"):
        estimate_mean(torch.zeros(0))


def test_a_score_of_a_set_stands_inside_its_interval() -> None:
    """The mean, scored as a set, has the interval of the mean; a variance, which resamples lower, stays inside."""
    values = torch.tensor([0.0] * 60 + [1.0] * 40, dtype=torch.float64)
    of_mean = estimate_score([lambda places: float(values[places].mean())] * 3, 100, 2000)
    assert (of_mean.mean, of_mean.seed_deviation) == pytest.approx((0.4, 0))
    assert (of_mean.num_items, of_mean.num_seeds) == (100, 3)
    assert of_mean.low == pytest.approx(0.304, abs=0.015) and of_mean.high == pytest.approx(0.496, abs=0.015)
    few = values[55:65]  # variance .25; of a resample of ten, .225 on average and never above .25
    of_variance = estimate_score([lambda places: float(few[places].var(correction=0))], 10, 500)
    assert of_variance.mean == pytest.approx(0.25) and of_variance.low < 0.25 < of_variance.high
    with pytest.raises(ShapeError, match="a set of items"):
        estimate_score([], 10)


def test_the_normal_interval_is_that_of_the_standard_error() -> None:
    # Standard deviation sqrt(1 / 3) of 0, 0, 1, 1, so its standard error sqrt(1 / 12).
    assert share_half_width([0, 0, 1, 1]) == pytest.approx(1.96 * (1 / 12) ** 0.5)
    assert share_half_width([1] * 100) == pytest.approx(1.96**2 / (100 + 1.96**2), abs=1e-5)  # Wilson's, of all right
    with pytest.raises(ShapeError, match="two values or more"):
        share_half_width([1])
