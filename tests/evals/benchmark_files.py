"""Small benchmark folders of Flatland in the official formats, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evals.harness.coco import KARPATHY
from evals.harness.coco import OFFICIAL as COCO
from gill.flatland import distinct_scenes, draw
from gill.flatland.captions import caption
from gill.flatland.writer import parts, write_picture

NUM_STORIES = 6
CAPTIONS = COCO[0]
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


def write_coco(out: Path) -> Path:
    """COCO's folder: captions of 2014, two a picture, and Karpathy's split with the same ones as its test."""
    told = [
        (number, draw(scene), scene) for number, scene in enumerate(distinct_scenes("val", NUM_STORIES, 0), start=7)
    ]
    captions = [
        (n, 10 * n + k, text)
        for n, _, scene in told
        for k, text in enumerate((caption(scene), f"This: {scene.place}."))
    ]
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg"} for n, _, _ in told]
    for image, (_, picture, _) in zip(images, told, strict=True):
        write_picture(out / "val2014" / str(image["file_name"]), picture)
    rows = [{"image_id": n, "id": number, "caption": text} for n, number, text in captions]
    (out / "annotations").mkdir()
    (out / "annotations" / CAPTIONS).write_text(json.dumps({"images": images, "annotations": rows}))
    split = [
        {
            "filepath": "val2014",
            "filename": image["file_name"],
            "cocoid": image["id"],
            "split": "test",
            "sentences": [{"raw": text, "sentid": number} for n, number, text in captions if n == image["id"]],
        }
        for image in images
    ]
    train = {"filepath": "train2014", "filename": "x.jpg", "cocoid": 1, "split": "train", "sentences": []}
    (out / KARPATHY).write_text(json.dumps({"images": [train, *split], "dataset": "coco"}))
    return out


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change an annotation file in place."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _write(out: Path, name: str) -> Path:
    part = next(part for part in parts(out, 10 * NUM_STORIES, 0) if part.name == name)
    part.finish([part.write(index) for index in range(part.count)])
    return out
