"""The measurement of retrieval runs, and would notice a search that finds something else."""

from pathlib import Path

import numpy as np
import pytest

from gill.retrieval import RetrievalIndex
from scripts.benchmarks import retrieval


def test_a_small_measurement_is_complete() -> None:
    measured = retrieval.retrieval_bench(is_tiny=True)
    assert measured.pop("retrieval_top10_equal") == 1.0
    assert set(measured) == {
        "retrieval_open_seconds",
        "retrieval_1_query_seconds",
        "retrieval_64_queries_seconds",
        "retrieval_resident_mb",
        "retrieval_mapped_mb",
    }
    assert all(np.isnan(value) or value > 0 for value in measured.values())


def test_the_brute_force_is_an_independent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the rows itself: a search that returns nonsense is not compared with itself."""
    retrieval._build(tmp_path, 100, 16, 30)
    monkeypatch.setattr(RetrievalIndex, "search", lambda *_: pytest.fail("the brute force used the search"))
    queries = retrieval._unit_rows(-1, 3, 16)
    rows = np.concatenate([retrieval._unit_rows(number, rows, 16) for number, rows in enumerate((30, 30, 30, 10))])
    scores = queries.astype(np.float64) @ rows.astype(np.float64).T
    assert retrieval._brute_force(tmp_path, queries) == np.argsort(-scores, axis=1)[:, :10].tolist()
