"""Approximate search by FAISS, an optional dependency: faster than the exact search on many millions of rows.

The index is built in memory when it is opened, which takes a copy of all rows and, for a million of them, about a
minute. Rows that FAISS proposes are scored again as the exact search scores them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gill.errors import ConfigError
from gill.retrieval.search import ExactSearch

_FEWEST_CLUSTERED_ROWS = 10_000  # below this many rows clusters cost more than they save: FAISS scores all rows
_TRAINING_ROWS_PER_CLUSTER = 40  # what FAISS asks for
_PROBED_SHARE = 16  # one cluster in so many is searched
_PROPOSED_PER_WANTED = 4


class FaissSearch:
    """Find rows with large dot products; same calls as `ExactSearch`.

    Raises:
        ConfigError: FAISS is not installed.
    """

    def __init__(self, exact: ExactSearch, num_rows: int, width: int) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ConfigError(
                "backend='faiss' needs the package faiss-cpu: pip install faiss-cpu, or leave backend at 'exact'"
            ) from error
        self._exact = exact
        self._index = _build(faiss, exact, num_rows, width)

    def top(self, queries: np.ndarray, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """As `ExactSearch.top`, but a row may be missed, and fewer than `count` be found."""
        proposed = self._index.search(np.ascontiguousarray(queries, np.float32), _PROPOSED_PER_WANTED * count)[1]
        found = [
            self._exact.best_of(query, np.unique(rows[rows >= 0]), count)  # -1 fills up what FAISS did not find
            for query, rows in zip(queries, proposed, strict=True)
        ]
        return [scores for scores, _ in found], [rows for _, rows in found]


def _build(faiss: Any, exact: ExactSearch, num_rows: int, width: int) -> Any:
    if num_rows < _FEWEST_CLUSTERED_ROWS:
        index = faiss.index_factory(width, "Flat", faiss.METRIC_INNER_PRODUCT)
    else:
        num_clusters = 4 * math.isqrt(num_rows)
        index = faiss.index_factory(width, f"IVF{num_clusters},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(_sample(exact, num_rows, num_clusters * _TRAINING_ROWS_PER_CLUSTER))
        index.nprobe = max(1, num_clusters // _PROBED_SHARE)
    for _, block in exact.blocks():
        index.add(np.ascontiguousarray(block))
    return index


def _sample(exact: ExactSearch, num_rows: int, count: int) -> np.ndarray:
    """About `count` rows, evenly spaced."""
    step = max(1, num_rows // count)
    return np.concatenate([block[(-start) % step :: step].copy() for start, block in exact.blocks()])
