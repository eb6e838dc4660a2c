"""Pictures of a CC3M file as questions: what do they show?

A folder holds `dataset/cc3m_val.tsv` and the pictures below `data/cc3m/validation/`, as this repository and
`scripts/make_flatland.py` lay them out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from evals.harness.items import Item, Reading
from gill.data import CaptionTable, find_image
from gill.errors import MissingFileError
from gill.types import Segment

TABLE, PICTURES = Path("dataset", "cc3m_val.tsv"), Path("data", "cc3m", "validation")


def read_captioning(folder: Path, protocol: str, context: str) -> Reading:
    """Each picture is to be described; an id is the line of the table."""
    table = CaptionTable(folder / TABLE)
    left_out = Counter({"a line that is no pair": len(table.bad_rows)})
    items = []
    for row in range(len(table)):
        caption, name = table.row(row)
        line = table.line(row)
        try:
            path = find_image(folder / PICTURES, name, f"{TABLE}:{line}")
        except MissingFileError:
            left_out["a picture is missing"] += 1
            continue
        items.append(Item(str(line), (Segment(image_path=path),), path, (path,), references=(caption,)))
    return Reading(tuple(items), folder, +left_out)
