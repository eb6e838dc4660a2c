"""Image embeddings with the place each picture came from, on disk.

Shape legend: N = pictures, E = retrieval width, Q = queries.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gill.errors import ConfigError, DataError, ShapeError
from gill.files import digest_file
from gill.retrieval.approximate import FaissSearch
from gill.retrieval.layout import (
    MAX_SOURCE_BYTES,
    SHARD_FILES,
    ShardCard,
    read_manifest,
    shard_path,
    wrong_sizes,
)
from gill.retrieval.search import ExactSearch
from gill.types import Hit

BACKENDS = ("exact", "faiss")
_OFFSET_BYTES = 8


class RetrievalIndex:
    """Unit-norm image embeddings of N pictures, searched by dot product. A `PictureIndex`.

    Opening reads no embedding and no name: files are compared by size, rows are memory-mapped, and the names of hits
    are read one by one.

    Args:
        folder: as `IndexWriter` leaves it.
        backend: "exact", or "faiss" for approximate search of many millions of rows.

    Raises:
        MissingFileError: no finished index there; DataError: its files do not fit together.
        ConfigError: an unknown backend, or FAISS is not installed.
    """

    def __init__(self, folder: Path, backend: str = "exact") -> None:
        if backend not in BACKENDS:
            raise ConfigError(f"unknown search backend {backend!r}; known: {', '.join(BACKENDS)}")
        self.folder = folder
        self.card, self._shards = read_manifest(folder)
        rows = [self._open(shard) for shard in self._shards]
        self._starts = np.cumsum([0, *(shard.rows for shard in self._shards)])
        exact = ExactSearch(rows)
        self._searcher = exact if backend == "exact" else FaissSearch(exact, self.num_images, self.width)

    @property
    def num_images(self) -> int:
        """N."""
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        """E."""
        return self.card.width

    def __len__(self) -> int:
        return self.num_images

    def search(self, queries: Tensor, count: int) -> list[list[Hit]]:
        """The `count` best pictures of each query, best first; fewer if the index is smaller.

        Args:
            queries: float[Q, E], unit norm. count: at least 1.

        Returns:
            Hits whose scores are dot products in [-1, 1]; of equal ones the earlier picture comes first.

        Raises:
            ShapeError: queries of another width, or not finite.
        """
        if queries.dim() != 2 or queries.shape[1] != self.width:
            raise ShapeError(f"{self.folder} is searched by float[Q, {self.width}], got {tuple(queries.shape)}")
        if not bool(torch.isfinite(queries).all()) or count < 1:
            raise ShapeError(f"a search needs finite queries and a count of at least 1; count is {count}")
        wide = torch.float64 if queries.dtype == torch.float64 else torch.float32
        scores, rows = self._searcher.top(queries.detach().to("cpu", wide).numpy(), count)
        return [
            [Hit(float(score), self.source(int(row))) for score, row in zip(found, numbers, strict=True)]
            for found, numbers in zip(scores, rows, strict=True)
        ]

    def source(self, number: int) -> str:
        """Path or address of a picture, by its number from 0.

        Raises:
            IndexError: no such picture; DataError: its entry is damaged.
        """
        if not 0 <= number < self.num_images:
            raise IndexError(f"picture {number} of {self.num_images}")
        place = int(np.searchsorted(self._starts, number, side="right")) - 1
        shard = self._shards[place]
        start, end = self._span(shard, number - int(self._starts[place]))
        path = shard_path(self.folder, shard.number, "sources")
        if not 0 <= start <= end <= min(shard.sizes["sources"], start + MAX_SOURCE_BYTES):
            raise DataError(f"{path} has no entry from byte {start} to {end}; build the index again")
        with path.open("rb") as file:
            file.seek(start)
            try:
                return file.read(end - start).decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is not UTF-8 at byte {start}; build the index again") from error

    def verify(self) -> None:
        """Compare every file with its checksum; reads all of them.

        Raises:
            DataError: some differ; the message names them.
        """
        damaged = [
            path.name
            for shard in self._shards
            for ending in SHARD_FILES
            if digest_file(path := shard_path(self.folder, shard.number, ending)) != shard.digests[ending]
        ]
        if damaged:
            raise DataError(
                f"{self.folder}: {', '.join(damaged)} differ from their checksums; copy or build them again"
            )

    def check_model(self, model: str) -> None:
        """Refuse to search embeddings of one model with queries of another.

        Args:
            model: `fingerprint` of the weights that embed pictures. An index of unknown origin is believed.

        Raises:
            ConfigError: they differ.
        """
        if self.card.model and self.card.model != model:
            raise ConfigError(
                f"{self.folder} was built with other weights than this model's; build it again with "
                "scripts/extract_img_embs.py --model"
            )

    def _open(self, shard: ShardCard) -> np.ndarray:
        wrong = wrong_sizes(self.folder, shard)
        if wrong:
            raise DataError(f"{wrong[0]} is missing or not of the size the index says; copy or build it again")
        path = shard_path(self.folder, shard.number, "npy")
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is no array that can be mapped ({error}); build the index again") from error
        wanted = (shard.rows, self.width)
        if rows.shape != wanted or rows.dtype != self.card.dtype or not rows.flags.c_contiguous:
            raise DataError(f"{path} is {rows.dtype}{rows.shape}, wanted {self.card.dtype}{wanted}; build it again")
        if shard.sizes["offsets"] != _OFFSET_BYTES * (shard.rows + 1):
            raise DataError(f"{path.with_suffix('.offsets')} does not fit {shard.rows} pictures; build the index again")
        return rows

    def _span(self, shard: ShardCard, row: int) -> tuple[int, int]:
        """First byte of a name and the one behind its last."""
        with shard_path(self.folder, shard.number, "offsets").open("rb") as file:
            file.seek(_OFFSET_BYTES * row)
            start, end = np.frombuffer(file.read(2 * _OFFSET_BYTES), "<i8")
        return int(start), int(end)
