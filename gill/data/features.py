"""Stored image features: what a frozen vision tower says of each picture, computed once.

A store is a folder: `store.json` (tower, width, dtype, rows a shard) and, for each shard, `shard-00000.npy` (float
[rows, F], read by memory map), `shard-00000.txt` (one image name a line) and `shard-00000.json` (rows and checksums),
which is written last: a shard without it does not exist.

Shape legend: F = feature width.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gill.errors import NOT_JSON, ConfigError, DataError, MissingFileError
from gill.files import digest_file, digest_names, write_array, write_bytes, write_json

CARD_NAME = "store.json"
QUARANTINE_NAME = "quarantine"
DTYPES = ("float32", "float16")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreCard:
    """What a store holds: features of `vision`, `width` numbers of `dtype` each, `shard_rows` names a shard."""

    vision: str
    width: int
    dtype: str = "float32"
    shard_rows: int = 16384

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.shard_rows < 1 or self.width < 1:
            raise ConfigError(f"shard_rows and width must be above 0, got {self.shard_rows} and {self.width}")


class FeatureStore:
    """Read features by image name; checksums are verified once, when the store is opened.

    A damaged shard is told of and left out: its pictures are then missing, each a bad sample that counts.

    Raises:
        MissingFileError: no store there; DataError: not a single shard is whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.card = folder, read_card(folder)
        self._shards: list[Path] = []
        self._maps: dict[int, np.ndarray] = {}
        self._places: dict[str, tuple[int, int]] = {}
        damage = "none is finished"
        for shard in sorted(path.with_suffix("") for path in folder.glob("shard-*.json")):
            try:
                names = _verified_names(shard, self.card)
            except DataError as error:
                damage = str(error)
                _log.warning("%s; its pictures are left out", damage)
                continue
            self._places.update({name: (len(self._shards), row) for row, name in enumerate(names)})
            self._shards.append(shard)
        if not self._places:
            raise DataError(f"{folder} has no whole shard ({damage}); run scripts/extract_img_features.py to its end")

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str, place: str) -> Tensor:
        """float32[F] feature of a picture.

        Raises:
            DataError: not in the store; the message starts with `place`.
        """
        if name not in self._places:
            raise DataError(
                f"{place}: {name} is not among the {len(self)} pictures of {self.folder}; "
                "run scripts/extract_img_features.py again"
            )
        number, row = self._places[name]
        return torch.from_numpy(self._mapped(number)[row].astype(np.float32))

    def shards(self) -> Iterator[np.ndarray]:
        """float[n, F] of one shard after the other, mapped, in the order they were written."""
        yield from map(self._mapped, range(len(self._shards)))

    def check_tower(self, vision: str) -> None:
        """Refuse to feed features of one tower to a model of another.

        Raises:
            ConfigError: they differ.
        """
        if self.card.vision != vision:
            raise ConfigError(f"{self.folder} holds features of {self.card.vision!r}, the model reads {vision!r}")

    def _mapped(self, number: int) -> np.ndarray:
        if number not in self._maps:
            self._maps[number] = np.load(self._shards[number].with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        return self._maps[number]


class FeatureWriter:
    """Write a store shard by shard; finished shards are kept, so the same call continues a stopped one.

    Several processes may fill one store, each its own shards. What is damaged goes to `quarantine/` and is written
    again.

    Raises:
        ConfigError: the folder holds a store of another tower or layout.
    """

    def __init__(self, folder: Path, card: StoreCard) -> None:
        if (folder / CARD_NAME).is_file() and read_card(folder) != card:
            raise ConfigError(f"{folder} was written as {read_card(folder)}, not {card}; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.card = folder, card
        write_json(folder / CARD_NAME, asdict(card))

    def missing(self, names: Sequence[str], rank: int = 0, num_processes: int = 1) -> list[tuple[int, list[str]]]:
        """(shard number, its names) of every shard of `names` that is not finished.

        Args:
            rank, num_processes: leave the others' shards to them; which they are depends on the shards' numbers alone.
        """
        size = self.card.shard_rows
        chunks = [list(names[start : start + size]) for start in range(0, len(names), size)]
        own = [(number, chunk) for number, chunk in enumerate(chunks) if number % num_processes == rank]
        return [(number, chunk) for number, chunk in own if not self._is_finished(number, chunk)]

    def write(self, number: int, asked: Sequence[str], names: Sequence[str], features: np.ndarray) -> None:
        """Finish a shard.

        Args:
            asked: the names it was to hold. names: those that could be read.
            features: float[len(names), F].

        Raises:
            DataError: features that do not fit names and card.
        """
        if features.shape != (len(names), self.card.width):
            raise DataError(f"features are {features.shape}, wanted {(len(names), self.card.width)}")
        shard = self._shard(number)
        write_array(shard.with_suffix(".npy"), features.astype(self.card.dtype))
        listing = "".join(f"{name}\n" for name in names).encode()
        write_bytes(shard.with_suffix(".txt"), listing)
        card = {"rows": len(names), "asked": digest_names(asked), "names": hashlib.sha256(listing).hexdigest()}
        card["features"] = digest_file(shard.with_suffix(".npy"))
        write_json(shard.with_suffix(".json"), card)

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}"

    def _is_finished(self, number: int, asked: Sequence[str]) -> bool:
        shard = self._shard(number)
        if not shard.with_suffix(".json").is_file():
            return False
        try:
            _verified_names(shard, self.card)
        except DataError as error:
            _log.warning("%s; moved to %s and written again", error, self._quarantine(shard))
            return False
        return bool(_read_shard_card(shard)["asked"] == digest_names(asked))

    def _quarantine(self, shard: Path) -> Path:
        folder = self.folder / QUARANTINE_NAME
        folder.mkdir(exist_ok=True)
        for path in self.folder.glob(f"{shard.name}.*"):
            path.replace(folder / path.name)
        return folder


def read_card(folder: Path) -> StoreCard:
    """What the store in `folder` holds.

    Raises:
        MissingFileError: no store there; DataError: its card cannot be read.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; build the store with scripts/extract_img_features.py")
    try:
        return StoreCard(**json.loads(path.read_text(encoding="utf-8")))
    except (*NOT_JSON, TypeError) as error:
        raise DataError(f"{path} is not a store's card ({error}); build the store again") from error


def _verified_names(shard: Path, store: StoreCard) -> list[str]:
    """The names of a shard whose files are what its card says.

    Raises:
        DataError: they are not.
    """
    card = _read_shard_card(shard)
    listing = shard.with_suffix(".txt")
    files = {"names": listing, "features": shard.with_suffix(".npy")}
    if any(not path.is_file() or card[name] != digest_file(path) for name, path in files.items()):
        raise DataError(
            f"{shard}.npy or .txt differs from its checksum; run scripts/extract_img_features.py again, it writes the "
            "shard anew"
        )
    names = listing.read_text("utf-8").split("\n")[:-1]  # a name may hold other ends of lines
    shape = np.load(shard.with_suffix(".npy"), mmap_mode="r", allow_pickle=False).shape
    if shape != (len(names), store.width):
        raise DataError(f"{shard}.npy is {shape}, its names and the store want {(len(names), store.width)}")
    return names


def _read_shard_card(shard: Path) -> dict[str, Any]:
    """Raises: DataError, for anything but a shard's card."""
    path = shard.with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *NOT_JSON) as error:
        raise DataError(f"{path} cannot be read ({error}); run scripts/extract_img_features.py again") from error
    if not isinstance(card, dict) or not {"asked", "names", "features"} <= card.keys():
        raise DataError(f"{path} is not a shard's card; run scripts/extract_img_features.py again")
    return card
