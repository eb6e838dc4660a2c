"""Which rows a training step reads: a function of (seed, step) alone.

Neither workers nor processes nor restarts change it, and any step is found without walking through those before it.
Step s reads positions [s B, (s + 1) B) of an endless row of passes over the data, each freshly shuffled. With lengths,
the rows of a window of batches are sorted by length before they are cut into batches, and the batches are shuffled.
Without lengths, rows of one group stay neighbours.

Shape legend: B = global batch size, N = rows of the data set.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gill.errors import ConfigError

WINDOW_BATCHES = 64  # sorted among so many batches: nearly all padding goes, the order stays nearly random
# Kinds of randomness drawn from one seed, so that no two share a stream.
_PASS, _WINDOW, _ROWS, _COIN = range(4)


class BatchOrder:
    """The rows of every step.

    Args:
        num_rows: N. batch_size: B.
        lengths: int[N], or None for no sorting.
        group_size: rows that stay neighbours; divides N and B, and goes with no lengths.

    Raises:
        ConfigError: no rows, no batch, or groups that would be torn.
    """

    def __init__(
        self, num_rows: int, batch_size: int, seed: int, lengths: np.ndarray | None = None, group_size: int = 1
    ) -> None:
        if num_rows < 1 or batch_size < 1:
            raise ConfigError(f"rows and batch size must be above 0, got {num_rows} and {batch_size}")
        if group_size > 1 and (num_rows % group_size or batch_size % group_size or lengths is not None):
            raise ConfigError(
                f"rows come in groups of {group_size}; {num_rows} rows and a batch of {batch_size} must be multiples "
                "of it, and rows cannot be sorted by length"
            )
        self.num_rows, self.batch_size, self.seed, self.lengths = num_rows, batch_size, seed, lengths
        self.group_size = group_size
        self._permutation = lru_cache(maxsize=2)(self._shuffled_pass)
        self._window = lru_cache(maxsize=2)(self._sorted_window)

    def __getstate__(self) -> dict[str, object]:
        names = ("num_rows", "batch_size", "seed", "lengths", "group_size")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def rows(self, step: int) -> np.ndarray:
        """int64[B] row numbers of a 0-based step."""
        if self.lengths is None:
            return self._positions(step * self.batch_size, self.batch_size)
        window, place = divmod(step, WINDOW_BATCHES)
        return self._window(window)[place]

    def _positions(self, start: int, count: int) -> np.ndarray:
        numbers = np.arange(start, start + count)
        passes, places = numbers // self.num_rows, numbers % self.num_rows
        return np.concatenate(
            [self._permutation(int(number))[places[passes == number]] for number in np.unique(passes)]
        )

    def _shuffled_pass(self, number: int) -> np.ndarray:
        groups = np.random.default_rng([self.seed, _PASS, number]).permutation(self.num_rows // self.group_size)
        return (groups[:, None] * self.group_size + np.arange(self.group_size)).ravel()

    def _sorted_window(self, number: int) -> np.ndarray:
        """int64[WINDOW_BATCHES, B]."""
        assert self.lengths is not None
        size = WINDOW_BATCHES * self.batch_size
        rows = self._positions(number * size, size)
        rows = rows[np.argsort(self.lengths[rows], kind="stable")].reshape(WINDOW_BATCHES, self.batch_size)
        rng = np.random.default_rng([self.seed, _WINDOW, number])
        # Rows of a batch are shuffled too, so that no process gets the long ones.
        return np.random.default_rng([self.seed, _ROWS, number]).permuted(rows[rng.permutation(WINDOW_BATCHES)], axis=1)


def is_paired_step(seed: int, step: int, probability: float) -> bool:
    """The pairing coin of a step: one for the whole global batch, whoever holds which share of it."""
    return bool(np.random.default_rng([seed, _COIN, step]).random() < probability)
