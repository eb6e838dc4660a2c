"""Small benchmark folders of Flatland in the official formats, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gill.flatland.writer import parts

NUM_STORIES = 6
STORIES, DIALOGUES = "val.story-in-sequence.json", "visdial_1.0_val.json"


def write_stories(out: Path) -> Path:
    """VIST's folder."""
    return _write(out, "stories") / "sis"


def write_dialogues(out: Path) -> Path:
    """VisDial's folder."""
    return _write(out, "dialogues") / "VisualDialog"


def write_captions(out: Path) -> Path:
    """The folder of CC3M's validation file and pictures."""
    return _write(out, "captioned pictures (val)")


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change an annotation file in place."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _write(out: Path, name: str) -> Path:
    part = next(part for part in parts(out, 10 * NUM_STORIES, 0) if part.name == name)
    part.finish([part.write(index) for index in range(part.count)])
    return out
