"""Rows of a CC3M file as questions: what does the picture show, or what would the caption look like?

A folder holds `dataset/cc3m_val.tsv` and the pictures below `data/cc3m/validation/`, as this repository and
`scripts/make_flatland.py` lay them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from evals.harness.items import Item, Reading
from gill.data import CaptionTable, find_image
from gill.errors import MissingFileError
from gill.types import Segment

TABLE, PICTURES = Path("dataset", "cc3m_val.tsv"), Path("data", "cc3m", "validation")


def read_captioning(folder: Path, protocol: str, context: str) -> Reading:
    """Each picture is to be described; an id is the line of the table."""
    return _read(folder, lambda caption, path: Segment(image_path=path))


def read_generation(folder: Path, protocol: str, context: str) -> Reading:
    """Each caption is to be drawn; an id is the line of the table."""
    return _read(folder, lambda caption, path: Segment(text=caption))


def _read(folder: Path, prompt: Callable[[str, Path], Segment]) -> Reading:
    table = CaptionTable(folder / TABLE)
    left_out, paths = Counter({"a line that is no pair": len(table.bad_rows)}), Counter[Path]()
    items = []
    for row in range(len(table)):
        caption, name = table.row(row)
        line = table.line(row)
        try:
            path = find_image(folder / PICTURES, name, f"{TABLE}:{line}")
        except MissingFileError:
            left_out["a picture is missing"] += 1
            continue
        paths[path] += 1
        items.append(Item(str(line), (prompt(caption, path),), path, (path,), references=(caption,)))
    notes = Counter({"lines whose picture had one already (each counts)": len(items) - len(paths)})
    return Reading(tuple(items), folder, +left_out, +notes)
