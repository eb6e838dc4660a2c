"""Read the pickled image embeddings that GILL and FROMAGe released, without executing anything in them.

`cc3m_embeddings*.npy` of GILL and `cc3m_embeddings*.pkl` of FROMAGe are pickles of
`{"paths": [address], "embeddings": [float[E]] or float[N, E]}`, with numpy arrays or torch tensors.

A pickle names functions to be called. Here every such name is looked up in a short table of our own functions, none of
which does more than note down numbers; any other name ends the reading.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from gill.errors import DataError, MissingFileError
from gill.files import write_json
from gill.retrieval.layout import IndexCard, is_storable
from gill.retrieval.writing import IndexWriter

_FLOATS = ("f2", "f4", "f8")
# What a damaged or forbidden pickle raises in the reader, and its numbers in numpy and torch.
_UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    RuntimeError,
    AssertionError,
    struct.error,
)
_SOURCES = "imported.json"
_END_BYTES = 1 << 20
_SHARD_ROWS = 262_144  # a released file has millions of rows; each shard is one open file


@dataclass(frozen=True)
class ReleasedEmbeddings:
    """What a released file holds: paths[i] is the picture of rows[i], float[N, E] of any norm."""

    paths: list[str]
    rows: np.ndarray


def import_released(files: Sequence[Path], folder: Path) -> tuple[int, int]:
    """Turn released embedding files into an index; their rows are scaled to unit norm.

    Returns:
        Pictures in the index, and rows left out: zero, not finite, or with a path that cannot be stored.

    Raises:
        MissingFileError: a file is not there; DataError: it cannot be read safely, or the files do not fit together.
    """
    parts = [read_released_embeddings(path) for path in files]
    widths = sorted({part.rows.shape[1] for part in parts})
    if len(widths) != 1:
        raise DataError(f"wanted files of one width, got {widths or 'no file'}; import them one by one")
    paths = [path for part in parts for path in part.paths]
    writer = IndexWriter(folder, IndexCard(widths[0]), _SHARD_ROWS)
    rows = np.concatenate([part.rows for part in parts])
    squares = np.einsum("ne,ne->n", rows, rows)
    is_good = np.isfinite(squares) & (squares > 0) & np.fromiter(map(is_storable, paths), bool, len(paths))
    for number, asked in writer.missing(paths):
        inside = number * _SHARD_ROWS + np.arange(len(asked))
        good = inside[is_good[inside]]
        writer.write(number, asked, [paths[row] for row in good], rows[good])
    writer.finish(len(paths))
    write_json(folder / _SOURCES, _known_by(files))
    return int(is_good.sum()), int((~is_good).sum())


def check_imported(files: Sequence[Path], folder: Path) -> None:
    """Refuse an index that was imported from other files than these, which have taken their place since.

    Raises:
        DataError: it was, or what it says of them is damaged.
    """
    path = folder / _SOURCES
    if not path.is_file():
        return  # an index of our own
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); remove {folder} to import again") from error
    if known != _known_by(files):
        raise DataError(
            f"{folder} was imported from {', '.join(known)}, and what lies beside it now is another "
            f"{', '.join(path.name for path in files)}; remove {folder} to import again"
        )


def _known_by(files: Sequence[Path]) -> dict[str, list[Any]]:
    """By name, a file's size and a digest of its ends: it may have gigabytes."""
    return {path.name: [path.stat().st_size, _digest_ends(path)] for path in files}


def _digest_ends(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_END_BYTES))
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return digest.hexdigest()


def read_released_embeddings(path: Path) -> ReleasedEmbeddings:
    """Read one file. It is held in memory whole, as the originals do.

    Raises:
        MissingFileError: it is not there; DataError: it would run code, is damaged, or holds something else.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; wanted a cc3m_embeddings file of GILL or FROMAGe")
    try:
        with path.open("rb") as file:
            content = _NumbersOnly(file).load()
        paths, rows = content["paths"], _matrix(content["embeddings"])
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path} is no embedding file that can be read without executing code in it ({reason})"
        ) from error
    if not isinstance(paths, list) or not all(isinstance(name, str) for name in paths) or len(paths) != len(rows):
        raise DataError(f"{path} must name one picture for each of its {len(rows)} embeddings; it does not")
    return ReleasedEmbeddings(paths, rows)


class _Array:
    """A numpy array or tensor as pickle restores it: made empty, then given its contents."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = np.zeros(0, np.float32) if values is None else values

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        self.values = _from_bytes(raw, dtype, shape, "F" if is_fortran else "C").values


class _Dtype:
    """A numpy dtype as pickle restores it: floats only."""

    def __init__(self, name: str) -> None:
        if name not in _FLOATS:
            raise pickle.UnpicklingError(f"it holds numbers of type {name!r}, wanted {', '.join(_FLOATS)}")
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        self.order = {"<": "<", ">": ">", "=": "="}[state[1]]


@dataclass(frozen=True)
class _Storage:
    """The numbers behind a tensor: float32[length]."""

    values: Tensor


class _NumbersOnly(pickle._Unpickler):
    """Restores plain values, arrays and tensors.

    The unpickler written in Python: the one in C reserves whatever memory a file asks for, whether or not it has that
    many entries.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        # Lambdas of this reader alone: what a file does to them ends with it.
        by_name: dict[str, Callable[..., Any] | str] = {
            "numpy.ndarray": "ndarray",
            "numpy.dtype": lambda name, *_: _Dtype(name),
            "_codecs.encode": lambda text, encoding: _encode(text, encoding),
            "collections.OrderedDict": lambda: {},
            "torch._utils._rebuild_tensor_v2": lambda *parts: _rebuild_tensor(*parts[:4]),
            "torch.storage._load_from_bytes": lambda raw: _load_storage(raw),
        }
        for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
            by_name[f"{core}.multiarray._reconstruct"] = lambda *_: _Array()
            by_name[f"{core}.numeric._frombuffer"] = lambda *parts: _from_bytes(*parts)
        self._by_name = by_name

    def find_class(self, module: str, name: str) -> Any:
        """Our stand-in for a name.

        Raises:
            UnpicklingError: there is none.
        """
        if f"{module}.{name}" not in self._by_name:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._by_name[f"{module}.{name}"]


def _from_bytes(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
        raise pickle.UnpicklingError("it holds an array of something else than numbers")
    return _Array(np.frombuffer(raw, np.dtype(dtype.order + dtype.name)).reshape(shape, order=order))


def _encode(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 write bytes.

    Raises:
        UnpicklingError: any other encoding.
    """
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _load_storage(raw: bytes) -> _Storage:
    stored = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    if not isinstance(stored, torch.TypedStorage):
        raise pickle.UnpicklingError("it holds a tensor without numbers")
    return _Storage(torch.tensor([], dtype=stored.dtype).set_(stored).float())


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> _Array:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("it holds a tensor without numbers")
    if math.prod(size) > storage.values.numel():  # one number, said to be read a billion times
        raise pickle.UnpicklingError(f"it holds an array {size} of {storage.values.numel()} numbers")
    return _Array(storage.values.as_strided(size, stride, offset).numpy())


def _matrix(found: Any) -> np.ndarray:
    """float32[N, E] of one array, or of a list of rows.

    Raises:
        ValueError, TypeError, AttributeError: it is neither.
    """
    if isinstance(found, _Array):
        rows = found.values.astype(np.float32)
    else:
        rows = np.empty((len(found), *found[0].values.shape), np.float32)
        for number, row in enumerate(found):
            rows[number] = row.values
    if rows.ndim != 2:
        raise ValueError(f"embeddings must be rows of numbers, got an array of {rows.shape}")
    return rows
