"""Caption files as the originals read them: a header `caption<TAB>image`, then one pair a line.

Fields are split at tabs and nothing else: a quotation mark is a character like any other. Only where lines start is
kept in memory, so that millions of rows cost a few dozen megabytes and loader workers share them.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import numpy as np

from gill.data.bad import BadSample
from gill.errors import DataError, MissingFileError

HEADER = ("caption", "image")
# The longest caption of CC3M has some 400 characters; a line of this length is two lines, or no caption.
MAX_CAPTION_CHARACTERS = 4000


class CaptionTable:
    """Rows of a caption file.

    Attributes:
        bad_rows: lines that are no pair; they are not among the rows.

    Raises:
        MissingFileError: no such file; DataError: not a caption file, or without a single usable row.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingFileError(f"{path} is missing; wanted a text file with the header caption<TAB>image")
        self.path, self._stamp = path, _stamp(path.stat())
        self.bad_rows: list[BadSample] = []
        places = array("q")  # start, bytes, line and caption length of each row, one after the other
        with path.open("rb") as file:
            start = _check_header(path, file.readline())
            for number, raw in enumerate(file, start=2):
                try:
                    caption, _ = parse_row(raw, f"{path}:{number}")
                    places.extend((start, len(raw), number, len(caption)))
                except DataError as error:
                    if raw.strip() or raw.count(b"\t"):  # an empty line is no row
                        self.bad_rows.append(BadSample(str(path), number, str(error)))
                start += len(raw)
        if not places:
            raise DataError(f"{path} has no usable row; wanted lines of caption<TAB>image name below the header")
        self._places = np.frombuffer(places, np.int64).reshape(-1, 4)

    @property
    def lengths(self) -> np.ndarray:
        """int64[rows], characters of each caption, to sort similar ones together."""
        return self._places[:, 3]

    def __len__(self) -> int:
        return len(self._places)

    def line(self, index: int) -> int:
        """The line of the file, from 1, that row `index` stands on."""
        return int(self._places[index, 2])

    def row(self, index: int) -> tuple[str, str]:
        """(caption, image name) of a row.

        Raises:
            MissingFileError: the file is gone; DataError: it is not the one that was opened.
        """
        place = f"{self.path}:{self.line(index)}"
        try:
            with self.path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                file.seek(int(self._places[index, 0]))
                raw = file.read(int(self._places[index, 1]))
        except OSError as error:
            raise MissingFileError(f"{place}: the file can no longer be read ({error}); put it back") from error
        if stamp != self._stamp:
            raise DataError(
                f"{place}: the file has changed since it was opened; put it back, or start a new run with it"
            )
        return parse_row(raw, place)


def parse_row(raw: bytes, place: str) -> tuple[str, str]:
    """(caption, image name) of one line.

    Raises:
        DataError: anything else than two non-empty fields of readable text; the message starts with `place`.
    """
    try:
        fields = [field.strip() for field in raw.decode("utf-8").rstrip("\r\n").split("\t")]
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    if len(fields) != len(HEADER):
        raise DataError(f"{place}: wanted caption<TAB>image, got {len(fields)} fields; separate them by one tab")
    caption, image = fields
    if not caption or not image:
        raise DataError(
            f"{place}: the {HEADER[0] if not caption else HEADER[1]} is empty; fill it in or remove the row"
        )
    if len(caption) > MAX_CAPTION_CHARACTERS:
        raise DataError(
            f"{place}: the caption has {len(caption)} characters, at most {MAX_CAPTION_CHARACTERS} are read; shorten it"
        )
    return caption, image


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _check_header(path: Path, raw: bytes) -> int:
    """Bytes of the header line.

    Raises:
        DataError: other columns, or another separator.
    """
    found = raw.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    if tuple(found.split("\t")) != HEADER:
        guess = next(
            (name for name, mark in (("commas", ","), ("semicolons", ";"), ("spaces", " ")) if mark in found), ""
        )
        hint = f"; it seems to be separated by {guess}, use tabs" if guess and "\t" not in found else ""
        raise DataError(f"{path}:1: wanted the header caption<TAB>image, got {found[:80]!r}{hint}")
    return len(raw)
