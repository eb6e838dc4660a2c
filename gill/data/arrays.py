"""One `.npy` file, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a file of one array, and the folders above it; a kill leaves the old file or the new one.

    Raises:
        OSError: it cannot be written; nothing unfinished stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
