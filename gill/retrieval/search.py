"""Exact search: one matrix product over memory-mapped rows, block by block.

Scores of a block are float32, and a row may be lost by their rounding only if it lies below the best found so far by
more than that rounding can amount to. What is left, a few rows a query, is scored again in float64: the order is that
of a float64 search over all rows, equal scores by the lower row.

Shape legend: N = rows, E = width, Q = queries, n = rows of one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK_ROWS = 16384  # 64 queries' scores of a block are 4 MB: they stay in the cache
_FLOAT32_STEP = float(np.finfo(np.float32).eps)


class ExactSearch:
    """Find the rows with the largest dot products.

    Args:
        shards: float32 or float16 [rows, E] each, unit norm, usually memory maps.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self._shards = list(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])

    def top(self, queries: np.ndarray, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The best rows of each query, best first.

        Args:
            queries: float[Q, E], unit norm. count: rows wanted of each, at least 1.

        Returns:
            float64[min(count, N)] scores and int64[min(count, N)] row numbers of each query.
        """
        candidates = self._candidates(queries.astype(np.float32), count)
        found = [self.best_of(query, rows, count) for query, rows in zip(queries, candidates, strict=True)]
        return [scores for scores, _ in found], [rows for _, rows in found]

    def best_of(self, query: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Of some rows the best, scored in float64: (scores, row numbers), best first, equal ones by number."""
        scores = np.concatenate([np.zeros(0), *(self._scores(query, part) for part in _parts(rows))])
        order = np.lexsort((rows, -scores))[:count]
        return scores[order], rows[order]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, float32[n, E]) of each block; float16 rows are widened into one buffer, good until the next."""
        buffer = None
        for start, shard in zip(self._starts, self._shards, strict=False):
            for first in range(0, len(shard), BLOCK_ROWS):
                block = shard[first : first + BLOCK_ROWS]
                if block.dtype != np.float32:
                    buffer = np.empty((BLOCK_ROWS, block.shape[1]), np.float32) if buffer is None else buffer
                    np.copyto(buffer[: len(block)], block)
                    block = buffer[: len(block)]
                yield int(start) + first, block

    def _candidates(self, queries: np.ndarray, count: int) -> list[np.ndarray]:
        """int64 row numbers of each query, the best `count` certainly among them."""
        slack = rounding(queries.shape[1])
        boards = [_Board(count, slack) for _ in queries]
        floors = np.full(len(queries), -np.inf, np.float32)
        scores = np.empty((len(queries), BLOCK_ROWS), np.float32)
        for start, block in self.blocks():
            scores_Qn = np.matmul(queries, block.T, out=scores[:, : len(block)])
            for query in np.flatnonzero((scores_Qn >= floors[:, None]).any(axis=1)):
                floors[query] = boards[query].add(start, scores_Qn[query])
        return [board.rows() for board in boards]

    def _scores(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float64 scores of some rows; equal rows score equally, wherever they stand."""
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.empty((len(rows), len(query)))
        for number in np.unique(shard_of):
            inside = shard_of == number
            found[inside] = self._shards[number][rows[inside] - self._starts[number]]
        return (found * query.astype(np.float64)).sum(axis=1)


class _Board:
    """The rows of one query that may still be among the best."""

    def __init__(self, count: int, slack: float) -> None:
        self._count, self._slack = count, np.float32(slack)
        self._rows = np.zeros(0, np.int64)
        self._scores = np.zeros(0, np.float32)

    def add(self, start: int, scores: np.ndarray) -> np.float32:
        """Take in a block's scores; returns the score below which nothing matters any more."""
        columns = np.flatnonzero(scores >= self._floor())
        self._rows = np.concatenate([self._rows, start + columns])
        self._scores = np.concatenate([self._scores, scores[columns]])
        floor = self._floor()
        kept = self._scores >= floor
        self._rows, self._scores = self._rows[kept], self._scores[kept]
        return floor

    def rows(self) -> np.ndarray:
        """int64 row numbers, in order."""
        return self._rows

    def _floor(self) -> np.float32:
        if len(self._scores) < self._count:
            return np.float32(-np.inf)
        return np.partition(self._scores, -self._count)[-self._count] - self._slack


def rounding(width: int) -> float:
    """By how much two float32 scores of unit rows can be apart that are equal in truth: four bounds of one sum."""
    return 4 * width * _FLOAT32_STEP


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[first : first + BLOCK_ROWS] for first in range(0, len(rows), BLOCK_ROWS))
