"""Pictures and captions that are to find each other by likelihood: how likely is each caption after each picture?

The papers' models give the log-likelihood of any prompt (`get_log_likelihood_scores`); of pictures and captions they
report none. Pictures are put together by lot in groups, in which every caption is scored after every picture: each
picture ranks the captions, and each caption the pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evals.harness import captions, coco
from evals.harness.items import Item, Reading, lot_of

GROUP_SIZE = 100  # as many as the answers that VisDial ranks; chance finds one in a hundred


def read_cc3m(folder: Path, protocol: str, context: str) -> Reading:
    """Pictures of a CC3M file."""
    return in_groups(captions.read_captioning(folder, protocol, context))


def read_coco(folder: Path, protocol: str, context: str) -> Reading:
    """Pictures of COCO, each with its first caption."""
    return in_groups(coco.read_captioning(folder, protocol, context))


def in_groups(reading: Reading, size: int = GROUP_SIZE) -> Reading:
    """Whole groups; all pictures are one where they are fewer. Of equal captions the first picture's counts."""
    first: dict[str, Item] = {}
    for item in reading.items:
        first.setdefault(item.references[0], item)
    by_lot = sorted(first.values(), key=lambda item: lot_of(item.id))
    size = max(min(size, len(by_lot)), 1)
    groups = [by_lot[start : start + size] for start in range(0, len(by_lot) - size + 1, size)]
    left_out = Counter(
        {
            "a caption that another picture has": len(reading.items) - len(first),
            "a picture beyond the last whole group": len(by_lot) - size * len(groups),
        }
    )
    items = tuple(item for group in groups for item in _questions(group))
    return replace(reading, items=items, left_out=reading.left_out + left_out)


def _questions(group: Sequence[Item]) -> list[Item]:
    said = tuple(item.references[0] for item in group)
    return [replace(item, references=(), candidates=said, right=place) for place, item in enumerate(group)]
