"""Files that are whole or not there, written under another name beside their place and then renamed; their digests."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file, and the folders above it; a kill leaves the old file or the new one.

    Args:
        write: called with the name to write under, in the same folder; its ending is not that of `path`.

    Raises:
        OSError: it cannot be written; nothing unfinished stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Containers that share a folder have processes of one number.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """A file of these bytes, as `write_whole`."""
    write_whole(path, lambda unfinished: unfinished.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """A UTF-8 file of this text, its line ends as they are, as `write_whole`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """An indented JSON file that ends in a line end, as `write_whole`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """A `.npy` file of one array, as `write_whole`."""

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as file:  # `np.save` would add an ending to a name
            np.save(file, array, allow_pickle=False)

    write_whole(path, write)


def digest_file(path: Path) -> str:
    """sha256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_names(names: Sequence[str]) -> str:
    """sha256 of names in their order, in hexadecimal."""
    return hashlib.sha256("\n".join(names).encode(errors="surrogatepass")).hexdigest()
