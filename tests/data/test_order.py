"""Which rows a step reads: all of them, once a pass, the same for everyone."""

import pickle

import numpy as np
import pytest

from gill.data import BatchOrder, is_paired_step
from gill.data.order import WINDOW_BATCHES
from gill.errors import ConfigError


@pytest.mark.parametrize("has_lengths", [False, True])
def test_every_row_is_read_once_a_pass(has_lengths: bool) -> None:
    num_rows, batch_size = 2 * WINDOW_BATCHES, 4
    lengths = np.arange(num_rows) if has_lengths else None
    order = BatchOrder(num_rows, batch_size, seed=1, lengths=lengths)
    rows = np.concatenate([order.rows(step) for step in range(WINDOW_BATCHES)])  # two passes
    assert np.bincount(rows, minlength=num_rows).tolist() == [2] * num_rows


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert np.bincount(BatchOrder(3, 7, seed=0).rows(0)).min() >= 2


def test_groups_stay_side_by_side() -> None:
    order = BatchOrder(30, 6, seed=2, group_size=3)
    rows = np.concatenate([order.rows(step) for step in range(5)])
    assert sorted(rows.tolist()) == list(range(30)) and rows.tolist() != list(range(30))
    assert all((group == group[0] + np.arange(3)).all() and group[0] % 3 == 0 for group in rows.reshape(-1, 3))
    with pytest.raises(ConfigError, match="groups of 3"):
        BatchOrder(30, 8, seed=2, group_size=3)


def test_any_step_is_found_without_those_before() -> None:
    order = BatchOrder(100, 8, seed=3, lengths=np.arange(100))
    far = order.rows(10_000)
    assert np.array_equal(BatchOrder(100, 8, seed=3, lengths=np.arange(100)).rows(10_000), far)
    assert np.array_equal(pickle.loads(pickle.dumps(order)).rows(10_000), far)
    assert not np.array_equal(BatchOrder(100, 8, seed=4, lengths=np.arange(100)).rows(10_000), far)


def test_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=4096)

    def waste(order: BatchOrder) -> float:
        batches = [lengths[order.rows(step)] for step in range(64)]
        return sum(batch.max() * len(batch) for batch in batches) / sum(batch.sum() for batch in batches)

    assert waste(BatchOrder(4096, 16, 0, lengths)) < 1.1 < 1.5 < waste(BatchOrder(4096, 16, 0))


def test_the_pairing_coin_belongs_to_the_step() -> None:
    coins = [is_paired_step(7, step, 0.5) for step in range(400)]
    assert coins == [is_paired_step(7, step, 0.5) for step in range(400)]
    assert 150 < sum(coins) < 250
    assert not any(is_paired_step(7, step, 0.0) for step in range(20))
    assert all(is_paired_step(7, step, 1.0) for step in range(20))


def test_no_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        BatchOrder(0, 4, 0)
