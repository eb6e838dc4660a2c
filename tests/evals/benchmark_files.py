"""Small benchmark folders of Flatland in the official formats, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evals.generate import main as generate
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


def write_questions(out: Path) -> Path:
    """VQA's folder: six questions, and five of the training part."""
    for part, count in (("val2014", 6), ("train2014", 5)):
        _write_questions(out, part, count)
    return out


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change an annotation file in place."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _write(out: Path, name: str) -> Path:
    part = next(part for part in parts(out, 10 * NUM_STORIES, 0) if part.name == name)
    part.finish([part.write(index) for index in range(part.count)])
    return out


def _write_questions(folder: Path, part: str, count: int) -> None:
    """Questions about as many pictures; nine people answer "answer N", one something else."""
    questions, annotations = [], []
    for number, scene in enumerate(distinct_scenes("val", count, 0), start=1):
        write_picture(folder / part / f"COCO_{part}_{number:012d}.jpg", draw(scene))
        question_id = 1000 * number
        texts = [f"answer {number}"] * 9 + ["the other"]
        answers = [{"answer": text, "answer_confidence": "yes", "answer_id": n} for n, text in enumerate(texts, 1)]
        questions.append({"image_id": number, "question": f"Is it {number}?", "question_id": question_id})
        annotations.append(
            {
                "question_type": "is it",
                "multiple_choice_answer": f"answer {number}",
                "answers": answers,
                "image_id": number,
                "answer_type": ("yes/no", "number", "other")[number % 3],
                "question_id": question_id,
            }
        )
    head = {"info": {}, "license": {}, "data_subtype": part, "data_type": "mscoco", "task_type": "Open-Ended"}
    names = {
        "OpenEnded_mscoco_{}_questions": {"questions": questions},
        "mscoco_{}_annotations": {"annotations": annotations},
    }
    for name, content in names.items():
        (folder / f"v2_{name.format(part)}.json").write_text(json.dumps({**head, **content}))


def by_chance(task: str, data: Path, out: Path, *words: str) -> Path:
    """A run of a task that chance answers."""
    assert generate([task, str(out), "--data", str(data), "--system", "chance", *words]) == 0
    return out
