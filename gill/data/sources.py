"""Where training pairs come from: rows that can be read by number, in any order, by any process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from gill.data.bad import BadSample
from gill.data.features import FeatureStore
from gill.data.images import find_image, open_image
from gill.data.table import CaptionTable
from gill.data.targets import TargetFolder
from gill.types import CaptionRecord


@dataclass(frozen=True)
class Example:
    """One pair as read: pictures decoded (RGB) or as stored features (float[F]), the target float[L, C] or None."""

    record: CaptionRecord
    image: Image.Image | Tensor
    context_images: tuple[Image.Image | Tensor, ...] = ()
    conditioning_target: Tensor | None = None


class Source(Protocol):
    """A data set. Reading is by number and without state, so that workers and restarts see the same rows."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray | None:
        """int64[rows], how long each text is in any unit, or None when sorting by length brings nothing."""
        ...

    @property
    def group_size(self) -> int:
        """g: rows [g i, g (i + 1)) stand side by side in a batch, as hard negatives of each other; 1 for none."""
        ...

    @property
    def bad_rows(self) -> Sequence[BadSample]:
        """What was found unusable already when the source was opened; not among its rows."""
        ...

    def place(self, index: int) -> tuple[str, int]:
        """(file, line) of a row, for messages."""
        ...

    def read(self, index: int) -> Example:
        """One pair.

        Raises:
            DataError: it cannot be used; the message starts with file and line.
        """
        ...


class CaptionFile:
    """A caption file and its pictures, as files or as stored features.

    Args:
        table: the rows.
        image_folder: where the image names lead.
        features: read instead of the pictures, when given.
        targets: stored conditioning targets, when given.
    """

    group_size = 1

    def __init__(
        self,
        table: CaptionTable,
        image_folder: Path,
        features: FeatureStore | None = None,
        targets: TargetFolder | None = None,
    ) -> None:
        self.table, self.image_folder, self.features, self.targets = table, image_folder, features, targets

    def __len__(self) -> int:
        return len(self.table)

    @property
    def lengths(self) -> np.ndarray:
        """int64[rows], characters of each caption."""
        return self.table.lengths

    @property
    def bad_rows(self) -> Sequence[BadSample]:
        """Lines that are no pair."""
        return self.table.bad_rows

    def place(self, index: int) -> tuple[str, int]:
        """(file, line) of a row."""
        return str(self.table.path), self.table.line(index)

    def read(self, index: int) -> Example:
        """One pair; see `Source.read`."""
        caption, name = self.table.row(index)
        source, line = self.place(index)
        place = f"{source}:{line}"
        target = None if self.targets is None else self.targets.read(name, place)
        if self.features is not None:
            path, image = self.image_folder / name, self.features.read(name, place)
            return Example(CaptionRecord(caption, path, source=source, line=line), image, conditioning_target=target)
        path = find_image(self.image_folder, name, place)
        record = CaptionRecord(caption, path, source=source, line=line)
        return Example(record, open_image(path, place), conditioning_target=target)
