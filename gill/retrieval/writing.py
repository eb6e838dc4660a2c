"""Write an index shard by shard; a build that was stopped at any moment is continued by the same calls.

Shape legend: E = retrieval width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gill.errors import ConfigError, DataError
from gill.files import digest_file, digest_names, write_array, write_bytes
from gill.retrieval.layout import (
    MANIFEST_NAME,
    MAX_SOURCE_BYTES,
    SHARD_FILES,
    IndexCard,
    ShardCard,
    is_storable,
    read_shard,
    shard_path,
    write_manifest,
)

_BUILD_NAME = "build.json"


class IndexWriter:
    """Writes the shards of one index.

    Args:
        folder: new, or of a build with the same settings. shard_rows: pictures a shard.

    Raises:
        ConfigError: the folder holds a build with other settings.
    """

    def __init__(self, folder: Path, card: IndexCard, shard_rows: int = 65536) -> None:
        if shard_rows < 1:
            raise ConfigError(f"shard_rows must be above 0, got {shard_rows}")
        self.folder, self.card, self.shard_rows = folder, card, shard_rows
        settings = {**asdict(card), "shard_rows": shard_rows}
        path = folder / _BUILD_NAME
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
            raise ConfigError(f"{folder} holds an index built with other settings; choose another folder or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps(settings).encode() + b"\n")

    def missing(self, names: Sequence[str]) -> list[tuple[int, list[str]]]:
        """(shard number, its names) of every shard of `names` that is not finished; a finished index is withdrawn."""
        chunks = [list(names[first : first + self.shard_rows]) for first in range(0, len(names), self.shard_rows)]
        found = [(number, chunk) for number, chunk in enumerate(chunks) if not self._is_finished(number, chunk)]
        if found:
            (self.folder / MANIFEST_NAME).unlink(missing_ok=True)
        return found

    def write(self, number: int, asked: Sequence[str], sources: Sequence[str], embeddings: np.ndarray) -> None:
        """Finish a shard.

        Args:
            asked: the names it was to hold, as given to `missing`.
            sources: paths or addresses of the pictures that could be read.
            embeddings: float[len(sources), E] of any norm above 0.

        Raises:
            DataError: rows that do not fit, are zero or not finite, or a source that cannot be stored.
        """
        rows = self._unit_rows(sources, embeddings)
        bad = next((source for source in sources if not is_storable(source)), None)
        if bad is not None:
            raise DataError(f"{bad[:80]!r} is no source of 1 to {MAX_SOURCE_BYTES} bytes of text; leave it out")
        encoded = [source.encode("utf-8") for source in sources]
        write_array(shard_path(self.folder, number, "npy"), rows)
        write_bytes(shard_path(self.folder, number, "sources"), b"".join(encoded))
        offsets = np.cumsum([0, *map(len, encoded)]).astype("<i8")
        write_bytes(shard_path(self.folder, number, "offsets"), offsets.tobytes())
        paths = {ending: shard_path(self.folder, number, ending) for ending in SHARD_FILES}
        sizes = {ending: path.stat().st_size for ending, path in paths.items()}
        digests = {ending: digest_file(path) for ending, path in paths.items()}
        shard = ShardCard(number, len(rows), digest_names(asked), sizes, digests)
        write_bytes(shard_path(self.folder, number, "json"), json.dumps(asdict(shard)).encode() + b"\n")

    def finish(self, num_names: int) -> None:
        """Write the manifest over the shards of `num_names` names; what longer or killed builds left is removed.

        Raises:
            DataError: a shard is missing, or none holds a picture.
        """
        num_shards = -(-num_names // self.shard_rows)
        shards = [read_shard(self.folder, number) for number in range(num_shards)]
        if None in shards:
            raise DataError(f"{self.folder} lacks shard {shards.index(None)}; run the build to its end")
        filled = [shard for shard in shards if shard is not None and shard.rows]
        if not filled:
            raise DataError(f"{self.folder}: not one picture could be read; see the report of bad pictures beside it")
        write_manifest(self.folder, self.card, filled)
        for path in self.folder.glob("shard-*.json"):
            if int(path.stem.removeprefix("shard-")) >= num_shards:
                for ending in ("json", *SHARD_FILES):
                    path.with_suffix(f".{ending}").unlink(missing_ok=True)
        for path in self.folder.glob(".*.[0-9]*"):  # names that `gill.files` writes under
            path.unlink(missing_ok=True)

    def _unit_rows(self, sources: Sequence[str], embeddings: np.ndarray) -> np.ndarray:
        if embeddings.shape != (len(sources), self.card.width):
            raise DataError(f"embeddings are {embeddings.shape}, wanted {(len(sources), self.card.width)}")
        norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(bad):
            raise DataError(f"the embedding of {sources[bad[0]]} is zero or not finite; leave it out")
        return (embeddings / norms).astype(self.card.dtype)

    def _is_finished(self, number: int, asked: Sequence[str]) -> bool:
        shard = read_shard(self.folder, number)
        return shard is not None and shard.asked == digest_names(asked)
