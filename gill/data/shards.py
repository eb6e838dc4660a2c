"""WebDataset shards: tar files whose members share a name up to their first dot, a picture and its caption.

`00000.tar` holds `000000000.jpg`, `000000000.txt` (or `.json` with a "caption"), `000000001.jpg`, ... as img2dataset
writes them. A shard is walked through once, header by header; where its samples lie is kept beside it in
`00000.tar.index.npy` (int64[rows + 1, 5]), so that any row is then two reads, in any order, by any process. A damaged
shard keeps what stands before the damage; the rest of it, and samples without picture or caption, are reported.
"""

from __future__ import annotations

import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from gill.data.bad import BadSample
from gill.data.images import EXTENSIONS, open_image
from gill.data.sources import Example
from gill.errors import NOT_JSON, ConfigError, DataError, MissingFileError
from gill.files import write_array
from gill.types import CaptionRecord

_CAPTIONS = (".txt", ".json")
# Columns of an index: bytes from the start of the shard, and the sample's number within it from 1. The size of a JSON
# caption is negative.
_IMAGE, _IMAGE_SIZE, _CAPTION, _CAPTION_SIZE, _NUMBER = range(5)
_log = logging.getLogger(__name__)


class ShardFolder:
    """A data set of WebDataset shards. A `Source`: reading is by number, from any shard.

    Args:
        paths: the shards, in the order their rows are numbered.

    Raises:
        ConfigError: no shards; DataError: not a single sample in them.
    """

    group_size = 1

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise ConfigError("no .tar files were given; name a folder of WebDataset shards")
        self.paths = list(paths)
        self.bad_rows: list[BadSample] = []
        indices, self._stamps = [], []
        for path in self.paths:
            index, bad = _read_index(path)
            indices.append(index)
            self._stamps.append(_stamp(path))
            self.bad_rows += bad
        self._starts = np.cumsum([0] + [len(index) for index in indices])
        self._rows = np.concatenate(indices)
        if not len(self._rows):
            why = f": {self.bad_rows[0].reason}" if self.bad_rows else ""
            raise DataError(f"the {len(paths)} shards from {paths[0]} on hold no pair of picture and caption{why}")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lengths(self) -> np.ndarray:
        """int64[rows], bytes of each caption."""
        return np.abs(self._rows[:, _CAPTION_SIZE])

    def place(self, index: int) -> tuple[str, int]:
        """(shard, sample within it, from 1) of a row."""
        return str(self.paths[self._shard(index)]), int(self._rows[index, _NUMBER])

    def read(self, index: int) -> Example:
        """One pair; see `Source.read`."""
        source, line = self.place(index)
        place, row = f"{source}:{line}", self._rows[index]
        shard = self._shard(index)
        try:
            with self.paths[shard].open("rb") as file:
                if _stamp(self.paths[shard]) != self._stamps[shard]:
                    raise DataError(
                        f"{place}: the shard has changed since it was opened; put it back, or start a new run"
                    )
                picture = _piece(file.fileno(), int(row[_IMAGE]), int(row[_IMAGE_SIZE]))
                words = _piece(file.fileno(), int(row[_CAPTION]), abs(int(row[_CAPTION_SIZE])))
        except OSError as error:
            raise MissingFileError(f"{place}: the shard can no longer be read ({error}); put it back") from error
        record = CaptionRecord(
            _caption(words, row[_CAPTION_SIZE] < 0, place), self.paths[shard], source=source, line=line
        )
        return Example(record, open_image(self.paths[shard], place, picture))

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1


def find_shards(folder: Path) -> list[Path]:
    """The shards of a folder, in the order of their names."""
    return sorted(folder.glob("*.tar")) if folder.is_dir() else []


def _caption(words: bytes, is_json: bool, place: str) -> str:
    try:
        text = json.loads(words)["caption"] if is_json else words.decode("utf-8")
    except (*NOT_JSON, TypeError, KeyError) as error:
        raise DataError(f"{place}: no caption that can be read ({error!r}); mend the shard") from error
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: the caption is empty; mend the shard or leave the sample out")
    return " ".join(text.split())


def _piece(handle: int, start: int, size: int) -> bytes:
    content = os.pread(handle, size, start)
    if len(content) != size:
        raise OSError(f"cut short at byte {start + len(content)}")
    return content


def _read_index(path: Path) -> tuple[np.ndarray, list[BadSample]]:
    """(int64[rows, 5], what is bad in it) of a shard; from beside it when that is of the same file."""
    kept = path.with_name(f"{path.name}.index.npy")
    try:
        index = np.load(kept, allow_pickle=False)
        if index.dtype == np.int64 and index.ndim == 2 and index.shape[1] == 5 and tuple(index[0, :2]) == _stamp(path):
            return index[1:], []
    except (OSError, ValueError, EOFError, IndexError):
        pass  # none there, or damaged: the shard itself is asked
    index, bad = _walk(path)
    if not bad:  # what is bad has to be said at every start
        _keep(kept, np.concatenate([[[*_stamp(path), 0, 0, 0]], index]))
    return index, bad


def _keep(path: Path, index: np.ndarray) -> None:
    try:
        write_array(path, index.astype(np.int64))
    except OSError as error:
        _log.info("the index of %s cannot be kept (%s); it is built at every start", path, error)


def _walk(path: Path) -> tuple[np.ndarray, list[BadSample]]:
    rows: list[tuple[int, int, int, int, int]] = []
    bad: list[BadSample] = []
    number = 0
    try:
        for number, (name, members) in enumerate(_samples(path), start=1):
            picture = next((members[end] for end in EXTENSIONS if end in members), None)
            caption = next(((end, members[end]) for end in _CAPTIONS if end in members), None)
            if picture is None or caption is None:
                lacks = "picture" if picture is None else "caption (.txt or .json)"
                bad.append(BadSample(str(path), number, f"{path}:{number}: {name} has no {lacks}; mend the shard"))
                continue
            size = caption[1].size if caption[0] == ".txt" else -caption[1].size
            rows.append((picture.offset_data, picture.size, caption[1].offset_data, size, number))
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = f"{path}:{number + 1}: the shard is damaged from here on ({error}); fetch it again"
        bad.append(BadSample(str(path), number + 1, reason))
    return np.array(rows, np.int64).reshape(-1, 5), bad


def _samples(path: Path) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """(name, members by extension) of each sample, whose members stand side by side.

    Raises:
        tarfile.TarError, OSError: the shard is damaged from here on.
    """
    name, members = "", dict[str, tarfile.TarInfo]()
    size = path.stat().st_size
    with tarfile.open(path, "r:", errorlevel=2) as shard:
        for member in shard:
            shard.members = []  # type: ignore[attr-defined]  # tarfile keeps them all otherwise
            if not member.isfile():
                continue
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"{member.name} reaches beyond the end of the file")
            stem, dot, extension = PurePosixPath(member.name).name.partition(".")
            key = str(PurePosixPath(member.name).parent / stem)
            if key != name and members:
                yield name, members
                members = {}
            name = key
            members[f"{dot}{extension.lower()}"] = member
    if members:
        yield name, members


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
