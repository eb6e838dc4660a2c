"""Exact search over a million pictures from disk: seconds, memory, and whether it finds what float64 finds.

The index is written into a temporary folder (1 GB) and opened by a process of its own, so that its memory can be told
from the builder's. Seconds are wall-clock, the shortest of several searches over files that the system has cached.

Shape legend: N = pictures, E = retrieval width, Q = queries.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gill.retrieval import IndexCard, IndexWriter, RetrievalIndex

_SIZES = {False: (1_000_000, 256, 65_536), True: (3_000, 16, 1_024)}  # is tiny -> N, E, rows a shard
_NUM_QUERIES, _COUNT = 64, 10
_NUM_TIMED = 7
_MB = 1e6


def retrieval_bench(is_tiny: bool) -> dict[str, float]:
    """Build, open, search and compare.

    Returns:
        retrieval_open_seconds, retrieval_1_query_seconds and retrieval_64_queries_seconds;
        retrieval_resident_mb: of the whole searching process, with the mapped files that the system has in memory;
        retrieval_mapped_mb: these mapped files alone, which it drops when others need the memory;
        retrieval_top10_equal: share of queries whose ten best pictures, in order, are those of a float64 search.
    """
    num_images, width, shard_rows = _SIZES[is_tiny]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _build(folder, num_images, width, shard_rows)
        queries = _unit_rows(-1, _NUM_QUERIES, width)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measured, found = pool.apply(_search, (folder, queries))
        wanted = _brute_force(folder, queries)
    equal = [one == other for one, other in zip(found, wanted, strict=True)]
    return measured | {"retrieval_top10_equal": sum(equal) / len(equal)}


def _unit_rows(seed: int, count: int, width: int) -> np.ndarray:
    rows = np.random.default_rng(seed + 1).standard_normal((count, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _build(folder: Path, num_images: int, width: int, shard_rows: int) -> None:
    names = [f"https://pictures.example/{number:09d}.jpg" for number in range(num_images)]
    writer = IndexWriter(folder, IndexCard(width), shard_rows)
    for number, asked in writer.missing(names):
        writer.write(number, asked, asked, _unit_rows(number, len(asked), width))
    writer.finish(num_images)


def _search(folder: Path, queries: np.ndarray) -> tuple[dict[str, float], list[list[int]]]:
    """Measures, and the numbers of the pictures found for each query."""
    start = time.perf_counter()
    index = RetrievalIndex(folder)
    measured = {"retrieval_open_seconds": time.perf_counter() - start}
    queries_QE = torch.from_numpy(queries)
    found = index.search(queries_QE, _COUNT)  # the first search also fills the system's cache
    measured["retrieval_1_query_seconds"] = _shortest(lambda: index.search(queries_QE[:1], _COUNT))
    measured["retrieval_64_queries_seconds"] = _shortest(lambda: index.search(queries_QE, _COUNT))
    measured["retrieval_resident_mb"] = _memory("VmRSS")
    measured["retrieval_mapped_mb"] = _memory("RssFile")
    return measured, [[int(hit.source[-13:-4]) for hit in hits] for hits in found]


def _shortest(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_NUM_TIMED):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _memory(name: str) -> float:
    """MB of this process as Linux counts them; nan elsewhere."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024 / _MB


def _brute_force(folder: Path, queries: np.ndarray) -> list[list[int]]:
    """The same by float64 products with every row and a full sort of each shard's scores."""
    best = np.full((len(queries), 0), -np.inf)
    numbers = np.zeros((len(queries), 0), np.int64)
    start = 0
    for path in sorted(folder.glob("shard-*.npy")):
        rows = np.load(path).astype(np.float64)
        scores = np.concatenate([best, queries.astype(np.float64) @ rows.T], axis=1)
        here = np.broadcast_to(np.arange(start, start + len(rows)), (len(queries), len(rows)))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_COUNT]
        best = np.take_along_axis(scores, order, axis=1)
        numbers = np.take_along_axis(np.concatenate([numbers, here], axis=1), order, axis=1)
        start += len(rows)
    return numbers.tolist()
