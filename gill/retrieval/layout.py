"""The files of an index, and how they are written whole and checked.

    index.json              what the index holds; written last: a folder without it is unfinished
    shard-00000.npy         float[rows, E], unit norm, read by memory map
    shard-00000.sources     paths and addresses of the pictures, UTF-8, one after the other
    shard-00000.offsets     little-endian int64[rows + 1], where each of them begins
    shard-00000.json        its entry of index.json, for a build that is continued

Opening compares the files' sizes with `index.json`; the checksums are for `RetrievalIndex.verify`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gill.errors import ConfigError, DataError, MissingFileError
from gill.files import write_bytes

MANIFEST_NAME = "index.json"
DTYPES = ("float32", "float16")
SHARD_FILES = ("npy", "sources", "offsets")
MAX_SOURCE_BYTES = 8192  # of one path or address
_FORMAT = 1
_HOW = "build it with scripts/extract_img_embs.py"


@dataclass(frozen=True)
class IndexCard:
    """What an index holds: rows of `width` numbers of `dtype`.

    Attributes:
        model: `fingerprint` of the weights that made the rows; "" when they are not known, as for released files.
    """

    width: int
    dtype: str = "float32"
    model: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"the dtype of an index must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if not isinstance(self.width, int) or self.width < 1 or not isinstance(self.model, str):
            raise ConfigError(f"an index needs a width above 0 and a model's name, got {self.width!r}, {self.model!r}")


@dataclass(frozen=True)
class ShardCard:
    """One finished shard.

    Attributes:
        number: counts from 0. rows: pictures in it.
        asked: digest of the pictures it was to hold, bad ones included.
        sizes, digests: bytes and sha256 of its files, by ending.
    """

    number: int
    rows: int
    asked: str
    sizes: Mapping[str, int]
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        counts = [self.number, self.rows, *(self.sizes[ending] for ending in SHARD_FILES)]
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(f"numbers of a shard must be whole and not negative, got {counts}")
        if not all(isinstance(self.digests[ending], str) for ending in SHARD_FILES):
            raise ValueError("a checksum is not text")


def shard_path(folder: Path, number: int, ending: str) -> Path:
    """One file of a shard; its name follows from its number, so that no manifest can point elsewhere."""
    return folder / f"shard-{number:05d}.{ending}"


def write_manifest(folder: Path, card: IndexCard, shards: Sequence[ShardCard]) -> None:
    """Finish an index."""
    content = {"format": _FORMAT, **asdict(card), "shards": [asdict(shard) for shard in shards]}
    write_bytes(folder / MANIFEST_NAME, json.dumps(content, indent=1).encode() + b"\n")


def read_manifest(folder: Path) -> tuple[IndexCard, list[ShardCard]]:
    """What `index.json` says.

    Raises:
        MissingFileError: there is none; DataError: it is not one, or of a newer format.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; {_HOW}, or run it again to finish a stopped build")
    content = _read_json(path)
    if content.pop("format", None) != _FORMAT:
        raise DataError(f"{path} is not an index of format {_FORMAT}; {_HOW}")
    try:
        shards = [ShardCard(**entry) for entry in content.pop("shards")]
        return IndexCard(**content), shards
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); {_HOW}") from error


def read_shard(folder: Path, number: int) -> ShardCard | None:
    """The entry of a finished shard; None while it is not finished, or if its files have other sizes by now.

    Raises:
        DataError: an entry that cannot be read.
    """
    path = shard_path(folder, number, "json")
    if not path.is_file():
        return None
    try:
        shard = ShardCard(**_read_json(path))
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it and run the build again") from error
    return shard if shard.number == number and not wrong_sizes(folder, shard) else None


def wrong_sizes(folder: Path, shard: ShardCard) -> list[Path]:
    """Files of a shard that are missing or of another size than its entry says."""
    paths = {ending: shard_path(folder, shard.number, ending) for ending in SHARD_FILES}
    return [path for ending, path in paths.items() if not path.is_file() or path.stat().st_size != shard.sizes[ending]]


def fingerprint(*weights: Tensor) -> str:
    """What tells one model's embeddings from another's: a digest of the weights that make them."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(f"{tuple(weight.shape)}".encode() + weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def is_storable(source: str) -> bool:
    """Whether an index can keep a path or address: text without halves of characters, and not too long."""
    try:
        return 0 < len(source.encode("utf-8")) <= MAX_SOURCE_BYTES
    except UnicodeEncodeError:
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); {_HOW}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no settings of an index; {_HOW}")
    return content
