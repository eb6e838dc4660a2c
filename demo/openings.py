"""First messages that show what a model can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demo.chat import keep_picture
from gill.flatland import caption, dialogue, distinct_scenes, draw

Opening = tuple[str, Sequence[Path]]

_SPLIT, _SEED = "test", 0  # of scenes that no part of a model has read or seen


def flatland_openings(folder: Path) -> list[Opening]:
    """A picture to describe, one to be asked about, and scenes to be shown; pictures are drawn into `folder`."""
    stored = distinct_scenes(_SPLIT, 3, _SEED)
    (novel,) = distinct_scenes("novel", 1, _SEED)
    asked = dialogue(_SPLIT, 0, _SEED)
    return [
        ("", [keep_picture(draw(stored[0]), folder)]),
        (f"{asked.rounds[0].question}?", [keep_picture(draw(asked.scene), folder)]),
        (caption(stored[1]), []),
        (caption(stored[2], template=2), []),
        (caption(novel, template=2), []),
    ]


def plain_openings() -> list[Opening]:
    """Openings for a model of the world at large."""
    return [
        ("Can you show me a picture of a dog in the snow?", []),
        ("I want to bake a cake for a friend. What could it look like?", []),
        ("What is a good place to see the mountains?", []),
    ]
